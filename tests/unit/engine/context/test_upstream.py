"""`engine.context.upstream`: the request that a model server is sent (M2, M9)."""

from __future__ import annotations

import json
from typing import Any

import pytest

from engine.api.request import FIELDS
from engine.context.upstream import upstream_request
from tests.support.playback import functions, request

F, G = functions("fg")
ALLOWED = {"type": "allowed_tools", "tools": [F]}


def sent(**fields: Any) -> dict[str, Any]:
    body: dict[str, Any] = json.loads(upstream_request(request(**fields), [b'{"a":1}', b"{}"]))
    return body


def test_the_input_stands_last_and_is_spliced_in() -> None:
    """M9: what changes from turn to turn is at the end."""
    body = upstream_request(request(instructions="i"), [b'{"a" : 1}', b"{}"])
    assert body.endswith(b',"input":[{"a" : 1},{}]}')
    assert body.startswith(b'{"model":"m","instructions":"i"')


def test_turns_are_streamed_and_not_stored_twice() -> None:
    """Whatever the client asked of us."""
    for asked in (True, False):
        body = sent(stream=asked, store=asked)
        assert (body["stream"], body["store"]) == (True, False)


GIVEN: dict[str, Any] = {
    "frequency_penalty": 0.5,
    "instructions": "i",
    "max_output_tokens": 7,
    "presence_penalty": 1,
    "reasoning": {"effort": "low"},
    "temperature": 0.0,
    "text": {"format": {"type": "json_object"}},
    "top_logprobs": 2,
    "top_p": 0.5,
    "top_k": 3,
    "stop": ["x"],
    "chat_template_kwargs": {"a": None},
}
KEPT: dict[str, Any] = {
    "background": False,
    "client_metadata": {},
    "include": ["file_search_call.results"],
    "max_tool_calls": 3,
    "metadata": {"k": "v"},
    "previous_response_id": "resp_1",
    "prompt_cache_key": "k",
    "safety_identifier": "s",
    "service_tier": "auto",
    "stream_options": {},
    "truncation": "disabled",
    "user": "u",
}


@pytest.mark.parametrize("name", GIVEN)
def test_what_the_model_needs_is_sent(name: str) -> None:
    """As it came."""
    assert sent(**{name: GIVEN[name]})[name] == GIVEN[name]


@pytest.mark.parametrize("name", KEPT)
def test_what_is_ours_is_not_sent(name: str) -> None:
    """M4: it would be refused, ignored or stored there."""
    assert name not in sent(**{name: KEPT[name]})


def test_each_field_that_is_forwarded_is_sent() -> None:
    """The table says it once."""
    assert {name for name, field in FIELDS.items() if field.forward} >= set(GIVEN)
    assert not {name for name, field in FIELDS.items() if field.forward} & set(KEPT)


def test_a_bare_request_has_nothing_that_the_server_does_not_need() -> None:
    """No nulls, no empty lists: servers fail on them."""
    assert sent(tools=[], include=[], temperature=None, tool_choice="auto") == {
        "model": "m",
        "stream": True,
        "store": False,
        "input": [{"a": 1}, {}],
    }


@pytest.mark.parametrize(
    ("choice", "names", "sent_choice"),
    [
        ("auto", ["f", "g"], None),
        ("none", ["f", "g"], "none"),
        ("required", ["f", "g"], "required"),
        (F, ["f", "g"], F),
        (ALLOWED, ["f"], None),
        ({**ALLOWED, "mode": "required"}, ["f"], "required"),
    ],
)
def test_tools_are_sent_as_the_choice_allows(
    choice: Any, names: list[str], sent_choice: object
) -> None:
    """T4: the model is shown only what it may call."""
    body = sent(tools=[F, G], tool_choice=choice)
    assert [tool["name"] for tool in body["tools"]] == names
    assert body.get("tool_choice") == sent_choice


def test_serial_calls_and_log_probabilities_are_asked_for() -> None:
    """Only where they were."""
    assert sent(tools=[F], parallel_tool_calls=False)["parallel_tool_calls"] is False
    assert "parallel_tool_calls" not in sent(tools=[F], parallel_tool_calls=True)
    assert "parallel_tool_calls" not in sent(parallel_tool_calls=False)
    include = ["message.output_text.logprobs", "file_search_call.results"]
    assert sent(include=include)["include"] == include[:1]
