"""`engine.context.replay`: the canonical encoder (M4, M9), against the table of measured servers."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest

from engine.api.items import parse_input
from engine.context.replay import replay
from engine.errors import InvalidRequest
from engine.ids import ItemIds
from engine.ports import StoredItem
from extproc.demo.rejection import Rejected
from tests.support.input_shapes import CALL, OUTPUT, SHAPES, Shape
from tests.support.releases import check_release, release_of

PNG = "data:image/png;base64,AA"
MESSAGE = {"type": "message", "id": "msg_1", "status": "completed"}
REASONING = {"type": "reasoning", "id": "rs_1", "status": "completed", "summary": []}


def text(value: str) -> dict[str, Any]:
    return {"type": "output_text", "text": value, "annotations": [], "logprobs": []}


def thought(value: str) -> dict[str, Any]:
    return {"type": "reasoning_text", "text": value}


def message(role: str, *content: dict[str, Any]) -> dict[str, Any]:
    return {**MESSAGE, "role": role, "content": list(content)}


HI = {"type": "input_text", "text": "hi"}
IMAGE = {"type": "input_image", "image_url": PNG, "detail": "auto"}
SENT_CALL = {"type": "function_call", "call_id": "call_1", "name": "f", "arguments": "{}"}

# item as shown -> item as sent; None: nothing is sent
TABLE: list[tuple[dict[str, Any], dict[str, Any] | None]] = [
    (message("user", HI), {"role": "user", "content": "hi"}),
    (message("system", HI), {"role": "system", "content": "hi"}),
    (message("developer", HI), {"role": "developer", "content": "hi"}),
    (
        message("user", HI, HI),
        {"type": "message", "role": "user", "content": [HI, HI]},
    ),
    (
        message("user", HI, {"type": "input_image", "image_url": PNG}),
        {"type": "message", "role": "user", "content": [HI, IMAGE]},
    ),
    (message("assistant", text("yo")), {"role": "assistant", "content": "yo"}),
    # Servers read the first part only, or fail on refusals.
    (message("assistant", text("a"), text("b")), {"role": "assistant", "content": "ab"}),
    (
        message("assistant", {"type": "refusal", "refusal": "no"}),
        {"role": "assistant", "content": "no"},
    ),
    # An empty one is a 500.
    (message("assistant"), None),
    (message("assistant", text("")), None),
    # A truncated message must not be continued: its status is not sent.
    (
        {**message("assistant", text("cut")), "status": "incomplete", "phase": "commentary"},
        {"role": "assistant", "content": "cut"},
    ),
    ({**CALL, "id": "fc_1", "status": "completed"}, SENT_CALL),
    ({**CALL, "status": "incomplete"}, None),
    ({**CALL, "arguments": ""}, SENT_CALL),
    ({**CALL, "arguments": '{"a":'}, {**SENT_CALL, "arguments": '{"invalid_arguments":"{\\"a\\":"}'}),
    ({**CALL, "arguments": "[1]"}, {**SENT_CALL, "arguments": '{"invalid_arguments":"[1]"}'}),
    ({**OUTPUT, "id": "fco_1", "status": "completed"}, OUTPUT),
    ({**OUTPUT, "output": [HI, {**HI, "text": "ho"}]}, {**OUTPUT, "output": "hi\nho"}),
    ({**OUTPUT, "output": [HI, IMAGE]}, {**OUTPUT, "output": [HI, IMAGE]}),
    ({**OUTPUT, "output": []}, {**OUTPUT, "output": ""}),
    (
        {**REASONING, "content": [thought("a"), thought("b")], "encrypted_content": None},
        {"type": "reasoning", "id": "rs_1", "summary": [], "content": [thought("ab")]},
    ),
    # A summary alone is refused by llama.cpp.
    ({**REASONING, "summary": [{"type": "summary_text", "text": "s"}]}, None),
    ({**REASONING, "content": [thought("")]}, None),
    ({**REASONING, "content": None}, None),
    ({"type": "mcp_list_tools", "id": "mcpl_1"}, None),
]  # fmt: skip


@pytest.mark.parametrize(("item", "sent"), TABLE)
def test_an_item_is_sent_in_the_one_form_that_all_servers_take(
    item: dict[str, Any], sent: dict[str, Any] | None
) -> None:
    """M4: backends.md §2.3."""
    made = replay(item)
    assert (None if made is None else json.loads(made)) == sent
    assert made is None or b"null" not in made


@pytest.mark.parametrize("release", ["0.16.0", "0.21.0", "0.28.0", "0.32.0"])
@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: shape.name)
def test_no_release_refuses_what_we_replay(shape: Shape, release: str) -> None:
    """M4: whatever of the 64 measured shapes a client sends, its replay is never a 400 or a 500."""
    try:
        raw = msgspec.Raw(json.dumps([shape.item]).encode())
        [item] = parse_input(raw, ItemIds("resp_ab"), most=9)
    except InvalidRequest:
        return
    if not isinstance(item, StoredItem) or item.replay is None:
        return
    body = {"input": [json.loads(item.replay)]}
    try:
        check_release(body, release_of(release))
    except Rejected as refusal:
        pytest.fail(f"{release} refuses {body}: {refusal.status}")


def test_the_bytes_depend_on_the_item_alone() -> None:
    """M9: a shared history is a shared prefix."""
    for item, _ in TABLE:
        assert replay(item) == replay(json.loads(json.dumps(item)))
