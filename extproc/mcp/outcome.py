"""What a server answered to a call, as an outcome: bounded, and in the API's words. Pure."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Callable, Mapping

from mcp_types import (
    AudioContent,
    CallToolResult,
    ContentBlock,
    EmbeddedResource,
    ImageContent,
    ResourceLink,
    TextContent,
    TextResourceContents,
)

from engine.api.json import encode
from engine.ports import ToolOutcome
from extproc.mcp.target import McpLimits

_IMAGE_TYPE = re.compile(r"image/[a-z0-9.+-]{1,64}")
_SILENT_FAILURE = "The tool failed and said nothing about it."


def outcome_of(result: CallToolResult, limits: McpLimits) -> ToolOutcome:
    """Return the outcome of a call that the server answered.

    Text comes first, then notes about what is no text; structured content stands in where there is
    neither text nor image. What is too long is cut, with a note that says so.
    """
    images = _images(result.content, limits.images)
    text = "\n".join(filter(None, (_text(block, images) for block in result.content)))
    if not text and not images and result.structured_content is not None:
        text = encode(result.structured_content).decode()
    text = cut(text, limits.output_text)
    if not result.is_error:
        return ToolOutcome(text=text, images=tuple(images.values()))
    said = text or _SILENT_FAILURE
    error = {"type": "mcp_tool_execution_error", "content": [{"type": "text", "text": said}]}
    return ToolOutcome(text=said, images=tuple(images.values()), error=encode(error))


def _images(content: list[ContentBlock], most: int) -> dict[int, str]:
    """Return the first images as data URLs, by the identity of their blocks."""
    images: dict[int, str] = {}
    for block in content:
        if isinstance(block, ImageContent) and len(images) < most and _is_image(block):
            images[id(block)] = f"data:{block.mime_type};base64,{block.data}"
    return images


def _is_image(block: ImageContent) -> bool:
    try:
        base64.b64decode(block.data, validate=True)
    except (binascii.Error, ValueError):
        return False
    return _IMAGE_TYPE.fullmatch(block.mime_type) is not None


def _text(block: ContentBlock, images: Mapping[int, str]) -> str:
    if isinstance(block, ImageContent):
        return "" if id(block) in images else f"[an image ({block.mime_type}) was left out]"
    return _TEXTS[type(block)](block)


def _resource(block: EmbeddedResource) -> str:
    resource = block.resource
    if isinstance(resource, TextResourceContents):
        return resource.text
    return f"[{resource.uri} ({resource.mime_type or 'binary'}) was left out]"


def _link(block: ResourceLink) -> str:
    return f"[{block.name}]({block.uri})"


_TEXTS: Mapping[type, Callable[..., str]] = {
    TextContent: lambda block: str(block.text),
    AudioContent: lambda block: f"[audio ({block.mime_type}) was left out]",
    EmbeddedResource: _resource,
    ResourceLink: _link,
}


def cut(text: str, most: int) -> str:
    """Return what a server said in at most so many characters, and a note where there were more."""
    if len(text) <= most:
        return text
    return (
        f"{text[:most]}\n[cut: the tool answered with {len(text)} characters, "
        f"of which these are the first {most}]"
    )
