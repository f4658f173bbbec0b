"""`engine.context.chat`: the request that a chat server is sent (M2, M9)."""

from __future__ import annotations

import json
from typing import Any

import pytest

from engine.api.request import FIELDS
from engine.context.chat import chat_request
from tests.support.playback import functions, request

F, G = functions("fg")
CHAT_F = {"type": "function", "function": {"name": "f"}}
ALLOWED = {"type": "allowed_tools", "tools": [F]}
SCHEMA = {"name": "n", "schema": {"type": "object"}, "strict": True}


def sent(**fields: Any) -> dict[str, Any]:
    item = b'{"role":"user","content":"hi"}'
    body: dict[str, Any] = json.loads(chat_request(request(**fields), [item]))
    return body


def test_a_bare_request_has_nothing_that_the_server_does_not_need() -> None:
    """M9: no nulls, no empty lists; the messages last; and the server counts its tokens."""
    body = sent(tools=[], include=[], temperature=None, tool_choice="auto", top_logprobs=3)
    assert body == {
        "model": "m",
        "stream": True,
        "stream_options": {"include_usage": True},
        "messages": [{"role": "user", "content": "hi"}],
    }
    assert list(body)[-1] == "messages"


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"max_output_tokens": 7}, {"max_tokens": 7}),
        ({"reasoning": {"effort": "low", "summary": "auto"}}, {"reasoning_effort": "low"}),
        ({"reasoning": {"summary": "auto"}}, {}),
        ({"text": {"format": {"type": "text"}}}, {}),
        ({"text": {"verbosity": "low"}}, {"verbosity": "low"}),
        (
            {"text": {"format": {"type": "json_object"}}},
            {"response_format": {"type": "json_object"}},
        ),
        (
            {"text": {"format": {"type": "json_schema", **SCHEMA}}},
            {"response_format": {"type": "json_schema", "json_schema": SCHEMA}},
        ),
        (
            {"include": ["message.output_text.logprobs"], "top_logprobs": 2},
            {"logprobs": True, "top_logprobs": 2},
        ),
        ({"include": ["message.output_text.logprobs"]}, {"logprobs": True, "top_logprobs": 0}),
        (
            {"temperature": 0.5, "top_p": 0.1, "top_k": 3},
            {"temperature": 0.5, "top_p": 0.1, "top_k": 3},
        ),
        ({"metadata": {"a": "b"}, "user": "u", "store": True, "truncation": "disabled"}, {}),
    ],
)
def test_fields_have_their_names_of_chat(given: dict[str, Any], expected: dict[str, Any]) -> None:
    """H1: each field that is forwarded has its place."""
    bare = sent()
    assert {name: value for name, value in sent(**given).items() if name not in bare} == expected


def test_each_field_that_is_forwarded_is_sent() -> None:
    """What servers add to the API has the same names on both paths."""
    known = {"model", "instructions", "max_output_tokens", "reasoning", "text", "top_logprobs"}
    for name, field in FIELDS.items():
        if field.forward and name not in known:
            assert sent(**{name: 1})[name] == 1


@pytest.mark.parametrize(
    ("choice", "names", "sent_choice"),
    [
        ("auto", ["f", "g"], None),
        ("none", ["f", "g"], "none"),
        ("required", ["f", "g"], "required"),
        (F, ["f", "g"], CHAT_F),
        (ALLOWED, ["f"], None),
        ({**ALLOWED, "mode": "required"}, ["f"], "required"),
    ],
)
def test_tools_are_sent_as_the_choice_allows(
    choice: Any, names: list[str], sent_choice: object
) -> None:
    """T4: the model is shown only what it may call."""
    body = sent(tools=[F, G], tool_choice=choice)
    assert [tool["function"]["name"] for tool in body["tools"]] == names
    assert all(tool["type"] == "function" for tool in body["tools"])
    assert body.get("tool_choice") == sent_choice


def test_serial_calls_are_asked_for() -> None:
    """Only where they were."""
    assert sent(tools=[F], parallel_tool_calls=False)["parallel_tool_calls"] is False
    assert "parallel_tool_calls" not in sent(tools=[F])
    assert "parallel_tool_calls" not in sent(parallel_tool_calls=False)
