"""Which requests the demo turns down, as vLLM 0.32 would."""

from __future__ import annotations

from typing import Any

import pytest

from extproc.demo.ask import Ask
from extproc.demo.input_items import check_input
from extproc.demo.rejection import Rejected
from extproc.demo.request_fields import check_chat, check_length, check_responses
from extproc.demo.responses_wire import MAX_MODEL_LEN
from tests.support.input_shapes import SHAPES, Shape

FUNCTION = {"type": "function", "name": "f"}
GRAMMAR = {"type": "custom", "name": "g", "format": {"type": "grammar"}}

REFUSED: list[tuple[dict[str, Any], int]] = [
    ({"instructions": ["a"]}, 400),
    ({"include": ["web_search_call.results"]}, 400),
    ({"include": ["bogus"]}, 400),
    ({"prompt": {"id": "p"}}, 400),
    ({"background": True, "store": False}, 400),
    ({"background": True}, 400),
    ({"background": None}, 500),
    ({"truncation": None}, 500),
    ({"metadata": {"a": 1}}, 400),
    ({"service_tier": "standard"}, 400),
    ({"service_tier": None}, 400),
    ({"tool_choice": "required"}, 400),
    ({"tool_choice": {"type": "function", "name": "g"}, "tools": [FUNCTION]}, 400),
    ({"tool_choice": 1}, 400),
    ({"tools": None}, 400),
    ({"tools": [{"type": "function", "function": {"name": "f"}}]}, 400),
    ({"tools": [{"type": "mcp", "server_url": "http://x"}]}, 400),
    ({"tools": [{"type": "no_such_tool"}]}, 400),
    ({"tools": [GRAMMAR]}, 400),
    ({"reasoning": {"effort": "bogus"}}, 400),
    ({"reasoning": "high"}, 400),
    ({"text": "json"}, 400),
    ({"max_output_tokens": 0}, 400),
    ({"max_output_tokens": "9"}, 400),
    ({"previous_response_id": "resp_1"}, 404),
    ({"input": 5}, 400),
    ({"input": ["hi"]}, 400),
]
TAKEN: list[dict[str, Any]] = [
    {},
    {"input": []},
    {"conversation": "conv_1"},
    {"no_such_field": 1},
    {"store": None, "stream": None, "top_logprobs": None, "parallel_tool_calls": None},
    {"reasoning": {"effort": "xhigh", "summary": "auto"}},
    {"include": ["reasoning.encrypted_content"]},
    {"tool_choice": "required", "tools": [FUNCTION]},
    {"tool_choice": {"type": "allowed_tools", "mode": "auto", "tools": []}, "tools": [FUNCTION]},
    {"tool_choice": {"type": "file_search"}, "tools": [{"type": "file_search"}]},
    {"tools": [{"type": "mcp", "server_label": "s"}, {"type": "custom", "name": "c"}]},
    {"text": {"format": None}},
]


@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: shape.name)
def test_an_input_item_is_taken_or_refused_as_by_vllm_0_32(shape: Shape) -> None:
    """64 shapes, each with the status that the release was measured to give."""
    if shape.status == 200:
        check_input([shape.item])
        return
    with pytest.raises(Rejected) as refusal:
        check_input([shape.item])
    assert refusal.value.status == shape.status
    assert refusal.value.body["error"]["code"] == shape.status


@pytest.mark.parametrize(("fields", "status"), REFUSED, ids=str)
def test_a_field_is_refused_as_by_vllm(fields: dict[str, Any], status: int) -> None:
    """The status and an error body whose code is a number."""
    with pytest.raises(Rejected) as refusal:
        check_responses({"input": "hi", **fields})
    assert refusal.value.status == status
    error = refusal.value.body["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert error["code"] == status


@pytest.mark.parametrize("fields", TAKEN, ids=str)
def test_a_field_is_taken_as_by_vllm(fields: dict[str, Any]) -> None:
    """Nulls, unknown fields and hosted tools pass."""
    check_responses({"input": "hi", **fields})


def test_an_input_is_required() -> None:
    """The only field that is."""
    with pytest.raises(Rejected):
        check_responses({"model": "m"})


def test_an_unsupported_item_is_named_in_the_message() -> None:
    """The operator reads which item type was in the way."""
    with pytest.raises(Rejected, match="Unsupported input item type: mcp_call"):
        check_input([{"type": "mcp_call", "id": "mcp_1"}])


def test_a_prompt_longer_than_the_window_is_refused() -> None:
    """With both lengths in the message, and param input."""
    check_length(Ask(input_tokens=MAX_MODEL_LEN))
    with pytest.raises(Rejected, match=str(MAX_MODEL_LEN)):
        check_length(Ask(input_tokens=MAX_MODEL_LEN + 1))


BAD_CHATS: list[dict[str, Any]] = [
    {},
    {"messages": []},
    {"messages": ["hi"]},
    {"messages": [{"role": "user", "content": "hi"}], "tools": [FUNCTION]},
]


@pytest.mark.parametrize("body", BAD_CHATS, ids=str)
def test_chat_needs_messages_with_roles_and_nested_tools(body: dict[str, Any]) -> None:
    """Anything else is a 400."""
    with pytest.raises(Rejected):
        check_chat(body)
