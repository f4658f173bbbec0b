"""`engine.upstream.turn`: calls in text and in thoughts, read where nothing else tells of them (R8)."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from engine.response.inputs import ItemStarted, TextDelta
from engine.response.turn import TurnRules
from engine.upstream.responses import ResponsesStream
from tests.support import markup_forms
from tests.support.responses_events import (
    added,
    arguments,
    completed,
    event,
    function_call,
    message,
    read,
    said,
    thought,
)

# -- markup that no terminal object explains -----------------------------------------------------------

DECLARED = TurnRules(tools=True, declared=markup_forms.TOOLS)
ALL_FORMS = {**markup_forms.FORMS, **markup_forms.BARE_FORMS}
ENDS: dict[str, Callable[[str], list[bytes]]] = {
    "the end has no output": lambda text: [completed_with({"status": "completed"})],
    "the output is null": lambda text: [completed_with({"status": "completed", "output": None})],
    "the output is empty": lambda text: [completed()],
    "the output is text": lambda text: [completed(message(text))],
    "the event has no object": lambda text: [event("completed")],
    "there is no end": lambda text: [],
    "it failed": lambda text: [event("failed")],
}


def completed_with(response: dict[str, Any]) -> bytes:
    return event("completed", response=response)


@pytest.mark.parametrize("how", ENDS)
@pytest.mark.parametrize("form", ALL_FORMS)
def test_complete_markup_becomes_calls_without_help(form: str, how: str) -> None:
    """R7, R8: servers without a parser, and streams that lost their terminal object."""
    text, expected = ALL_FORMS[form]
    for size in (1, 7, len(text)):
        deltas = [said(text[at : at + size]) for at in range(0, len(text), size)]
        shown, _ = read(*deltas, *ENDS[how](text), rules=DECLARED)
        assert [(name, json.loads(given)) for name, given in shown] == expected


@pytest.mark.parametrize("form", ALL_FORMS)
def test_calls_in_text_that_was_never_streamed_are_calls(form: str) -> None:
    """R8: only the terminal object came, or an answer that is no stream."""
    text, expected = ALL_FORMS[form]
    shown, _ = read(completed(message(text)), rules=DECLARED)
    assert [(name, json.loads(given)) for name, given in shown] == expected
    stream = ResponsesStream(DECLARED)
    content = stream.receive_whole(
        json.dumps({"status": "completed", "output": [message(text)]}).encode()
    )
    names = [piece.name for piece in content if isinstance(piece, ItemStarted)]
    assert names == [name for name, _ in expected]


@pytest.mark.parametrize("form", markup_forms.FORMS)
def test_text_of_a_server_that_told_calls_apart_is_text(form: str) -> None:
    """R8: whatever it looks like, where the terminal object has calls beside it."""
    text, _ = markup_forms.FORMS[form]
    shown, _ = read(completed(message(text), function_call("f", "{}")), rules=DECLARED)
    assert shown == [("message", text), ("f", "{}")]


def test_the_limits_of_a_turn_hold_for_calls_in_text() -> None:
    """T4: allowed tools, and one call where calls are not parallel."""
    text, _ = markup_forms.FORMS["hermes, two"]
    for rules, names in (
        (msgspec.structs.replace(DECLARED, parallel=False), ["get_weather"]),
        (msgspec.structs.replace(DECLARED, allowed=frozenset({"get_time"})), ["get_time"]),
    ):
        shown, _ = read(said(text), completed(), rules=rules)
        assert [name for name, _ in shown] == names


def test_a_call_that_a_limit_cut_is_not_shown() -> None:
    """R8, R9: the text before it is."""
    cut = event("incomplete", response={"status": "incomplete", "output": []})
    whole, _ = markup_forms.FORMS["hermes"]
    for markup in ("<tool_call>", '<tool_call>{"name": "get_w', whole[: len(whole) // 2]):
        shown, stream = read(said("Well. " + markup), cut, rules=DECLARED)
        assert shown == [("message", "Well. ")]
        assert stream.outcome is not None
        assert stream.outcome.incomplete_reason == "max_output_tokens"


def test_json_that_was_asked_for_is_no_call() -> None:
    """R8: structured output may look like one; it is not even held."""
    text, _ = markup_forms.BARE_FORMS["llama, bare"]
    stream = ResponsesStream(msgspec.structs.replace(DECLARED, format={"type": "json_object"}))
    assert stream.receive(said(text)) == [ItemStarted("message"), TextDelta(text)]


# -- reasoning that swallows calls ---------------------------------------------------------------------


@pytest.mark.parametrize("form", markup_forms.FORMS)
def test_a_call_that_the_reasoning_swallowed_is_a_call(form: str) -> None:
    """R8: the model never closed its thought, and nothing but the thought came."""
    text, expected = markup_forms.FORMS[form]
    for size in (1, len(text)):
        deltas = [thought(text[at : at + size]) for at in range(0, len(text), size)]
        shown, _ = read(thought("I ask. "), *deltas, completed(), rules=DECLARED)
        assert shown[0] == ("reasoning", "I ask. ")
        assert [(name, json.loads(given)) for name, given in shown[1:]] == expected


@pytest.mark.parametrize(
    "following",
    [[said("Hi")], [event("reasoning_summary_text.delta", delta="so", item_id="r")], [thought("x", "r2")]],
    ids=["text", "a summary", "another thought"],
)  # fmt: skip
def test_a_thought_about_a_call_stays_a_thought(following: list[bytes]) -> None:
    """R8: the model went on; whole and in order."""
    text, _ = markup_forms.FORMS["hermes"]
    shown, _ = read(thought("Say " + text), *following, completed(), rules=DECLARED)
    assert shown[0][0] == "reasoning"
    assert shown[0][1].startswith("Say " + text)
    assert not [name for name, _ in shown if name == "get_weather"]


@pytest.mark.parametrize("streamed", [True, False])
def test_a_call_that_the_server_read_out_of_the_reasoning_is_made_once(streamed: bool) -> None:
    """R5, R8: by its events, or by the terminal object."""
    text, _ = markup_forms.FORMS["hermes"]
    given = '{"city": "Paris"}'
    events = [added("c", "get_weather"), arguments("c", given)] if streamed else []
    end = completed(function_call("get_weather", given))
    shown, _ = read(thought("So. " + text), *events, end, rules=DECLARED)
    assert shown == [("reasoning", "So. "), ("get_weather", given)]
