"""`engine.api.response_object`: all fields, the client's request echoed (R10)."""

from __future__ import annotations

import json
from typing import Any

import pytest

from engine.api.response_object import ResponseObject, State, Usage, join
from tests.support.playback import request
from tests.support.stream_rules import FIELDS, check_response

USAGE = Usage(input_tokens=1, cached_tokens=2, output_tokens=3, reasoning_tokens=4)


def shown(state: State, **fields: Any) -> dict[str, Any]:
    head = ResponseObject("resp_1", 1700, request(**fields)).head(state)
    found: dict[str, Any] = json.loads(join(head, []))
    return found


STATES = {
    "in_progress": State(status="in_progress"),
    "completed": State(status="completed", completed_at=1701, usage=USAGE),
    "incomplete": State(status="incomplete", incomplete_reason="max_output_tokens"),
    "failed": State(status="failed", error={"code": "server_error", "message": "m"}),
}


@pytest.mark.parametrize("status", STATES)
def test_the_object_has_all_fields_in_every_state(status: str) -> None:
    """R10: the 31 of Open Responses, and `user`."""
    found = shown(STATES[status])
    check_response(found)
    assert set(found) == FIELDS | {"user"}


def test_nothing_asked_for_is_shown_with_the_defaults() -> None:
    """R10: of the API, not of the model server."""
    found = shown(STATES["in_progress"])
    assert found["tools"] == []
    assert (found["tool_choice"], found["truncation"], found["service_tier"]) == (
        "auto",
        "disabled",
        "default",
    )
    assert (found["temperature"], found["top_p"], found["top_logprobs"]) == (1.0, 1.0, 0)
    assert (found["store"], found["background"], found["parallel_tool_calls"]) == (
        True,
        False,
        True,
    )
    assert (found["text"], found["reasoning"]) == ({"format": {"type": "text"}}, None)
    assert (found["metadata"], found["max_output_tokens"]) == ({}, None)


ASKED: dict[str, Any] = {
    "frequency_penalty": 0.5,
    "instructions": "be brief",
    "max_output_tokens": 7,
    "max_tool_calls": 2,
    "metadata": {"k": "v"},
    "model": "small",
    "parallel_tool_calls": False,
    "presence_penalty": -1,
    "previous_response_id": "resp_0",
    "prompt_cache_key": "k",
    "safety_identifier": "s",
    "store": False,
    "temperature": 0,
    "text": {"format": {"type": "json_object"}, "verbosity": "low"},
    "top_logprobs": 3,
    "top_p": 0.5,
    "user": "u",
}


@pytest.mark.parametrize("name", ASKED)
def test_what_was_asked_for_is_echoed(name: str) -> None:
    """R10: from the client's request."""
    assert shown(STATES["in_progress"], **{name: ASKED[name]})[name] == ASKED[name]


def test_the_echo_of_an_object_is_completed() -> None:
    """openai_api.md §0.3: `reasoning` has both keys, functions have theirs, text has a format."""
    tool = {"type": "function", "name": "f"}
    found = shown(
        STATES["in_progress"],
        reasoning={"effort": "low"},
        tools=[tool],
        tool_choice="required",
        text={"verbosity": "low"},
    )
    assert found["reasoning"] == {"effort": "low", "summary": None}
    assert found["tools"] == [{**tool, "description": None, "parameters": None, "strict": None}]
    assert found["tool_choice"] == "required"
    assert found["text"] == {"verbosity": "low", "format": {"type": "text"}}


def test_fields_of_servers_are_not_echoed() -> None:
    """The response object is the API's."""
    assert "top_k" not in shown(STATES["in_progress"], top_k=5)


def test_usage_adds_up_over_turns() -> None:
    """R10: all of its numbers."""
    assert (
        Usage(input_tokens=2, cached_tokens=4, output_tokens=6, reasoning_tokens=8) == USAGE + USAGE
    )
    assert (USAGE + USAGE).shown()["total_tokens"] == 8


def test_output_is_spliced_in_as_it_is() -> None:
    """Byte for byte."""
    head = ResponseObject("resp_1", 1, request()).head(STATES["in_progress"])
    assert join(head, [b'{"a" : 1}', b"{}"]).endswith(b',"output":[{"a" : 1},{}]}')
