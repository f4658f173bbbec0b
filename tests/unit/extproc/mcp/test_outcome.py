"""`extproc.mcp.outcome`: what a server answered, bounded and in the API's words (T2, X5)."""

from __future__ import annotations

import base64
import json

import pytest
from mcp_types import (
    AudioContent,
    BlobResourceContents,
    CallToolResult,
    ContentBlock,
    EmbeddedResource,
    ImageContent,
    ResourceLink,
    TextContent,
    TextResourceContents,
)

from extproc.mcp.outcome import outcome_of
from extproc.mcp.target import McpLimits

LIMITS = McpLimits(output_text=20, images=2)
PIXEL = base64.b64encode(b"pixel").decode()


def image(data: str = PIXEL, mime_type: str = "image/png") -> ImageContent:
    return ImageContent(data=data, mime_type=mime_type)


@pytest.mark.parametrize(
    ("block", "text"),
    [
        (TextContent(text="hé\x00"), "hé\x00"),
        (AudioContent(data=PIXEL, mime_type="audio/wav"), "[audio (audio/wav) was left out]"),
        (ResourceLink(name="a", uri="x://a"), "[a](x://a)"),
        (EmbeddedResource(resource=TextResourceContents(uri="x://a", text="inside")), "inside"),
        (
            EmbeddedResource(resource=BlobResourceContents(uri="x://a", blob=PIXEL)),
            "[x://a (binary) was left out]",
        ),
        (image(data="no base64!"), "[an image (image/png) was left out]"),
        (image(mime_type="image/png;x,"), "[an image (image/png;x,) was left out]"),
        (image(mime_type="text/html"), "[an image (text/html) was left out]"),
    ],
)
def test_each_kind_of_content_is_text_or_a_note(block: ContentBlock, text: str) -> None:
    """T2: the model learns of what it is not shown."""
    outcome = outcome_of(CallToolResult(content=[block]), McpLimits())
    assert (outcome.text, outcome.images, outcome.failed) == (text, (), False)


def test_images_beyond_the_bound_are_named() -> None:
    """X5."""
    outcome = outcome_of(CallToolResult(content=[image(), image(), image()]), McpLimits(images=2))
    assert outcome.images == (f"data:image/png;base64,{PIXEL}",) * 2
    assert outcome.text == "[an image (image/png) was left out]"


def test_text_beyond_the_bound_is_cut_with_a_note() -> None:
    """X5: and text of exactly the bound is whole."""
    outcome = outcome_of(CallToolResult(content=[TextContent(text="x" * 21)]), LIMITS)
    assert outcome.text.startswith("x" * 20 + "\n[cut: the tool answered with 21 characters")
    assert outcome_of(CallToolResult(content=[TextContent(text="x" * 20)]), LIMITS).text == "x" * 20


def test_structure_stands_in_for_missing_text_only() -> None:
    """T2: servers repeat it as text."""
    both = CallToolResult(content=[TextContent(text="t")], structured_content={"a": 1})
    assert outcome_of(both, LIMITS).text == "t"
    assert outcome_of(CallToolResult(content=[], structured_content=[1]), LIMITS).text == "[1]"
    assert outcome_of(CallToolResult(content=[]), LIMITS).text == ""


def test_a_failure_always_says_something() -> None:
    """T2: as the API's error object."""
    outcome = outcome_of(CallToolResult(content=[], is_error=True), McpLimits())

    assert outcome.failed
    assert outcome.text
    assert json.loads(outcome.error or b"") == {
        "type": "mcp_tool_execution_error",
        "content": [{"type": "text", "text": outcome.text}],
    }
