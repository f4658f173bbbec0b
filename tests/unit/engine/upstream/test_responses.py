"""`engine.upstream.responses`: a server's events to content, where servers differ or are wrong."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.response.inputs import (
    ArgumentsDelta,
    Content,
    ItemStarted,
    ReasoningDelta,
    RefusalDelta,
    SummaryDelta,
    TextDelta,
    UpstreamEnded,
    UpstreamEvent,
    UpstreamStarted,
)
from engine.response.turn import TurnRules
from engine.upstream.responses import ResponsesStream
from engine.upstream.shapes import TOKENS
from tests.support import frames, markup_forms, replies
from tests.support.fake_model import frames_of
from tests.support.markup_forms import BEGINNINGS, is_prose
from tests.support.playback import play
from tests.support.replies import call, reasoning, text
from tests.support.stream_rules import check_stream, response_of

Shown = list[tuple[str, str]]

TOOLS = TurnRules(tools=True)


def event(kind: str, **fields: Any) -> bytes:
    return json.dumps({"type": f"response.{kind}", **fields}).encode()


def said(delta: str, key: str = "m", **fields: Any) -> bytes:
    return event("output_text.delta", delta=delta, item_id=key, **fields)


def completed(*output: dict[str, Any], **fields: Any) -> bytes:
    return event("completed", response={"status": "completed", "output": output, **fields})


def message(*texts: str) -> dict[str, Any]:
    parts = [{"type": "output_text", "text": piece} for piece in texts]
    return {"type": "message", "content": parts}


def function_call(name: str, arguments: str) -> dict[str, Any]:
    return {"type": "function_call", "name": name, "arguments": arguments}


def added(key: str, name: str) -> bytes:
    return event("output_item.added", item={"type": "function_call", "id": key, "name": name})


def arguments(key: str, delta: str) -> bytes:
    return event("function_call_arguments.delta", item_id=key, delta=delta)


def read(*events: bytes, rules: TurnRules = TOOLS) -> tuple[Shown, ResponsesStream]:
    """Return the items that come out, as (kind or name, text), and the stream at its end."""
    stream = ResponsesStream(rules)
    content: list[Content] = []
    for data in events:
        content += stream.receive(data)
    content += stream.end()
    shown: Shown = []
    for piece in content:
        match piece:
            case ItemStarted(kind, name):
                shown.append((name or kind, ""))
            case (
                TextDelta() | RefusalDelta() | ArgumentsDelta() | ReasoningDelta() | SummaryDelta()
            ):
                shown[-1] = (shown[-1][0], shown[-1][1] + piece.text)
            case UpstreamStarted() | UpstreamEvent() | UpstreamEnded():
                raise AssertionError("no tool of the server's was declared")
    return shown, stream


# -- what waits, and where it goes -------------------------------------------------------------------


def test_markup_becomes_the_calls_of_the_terminal_object() -> None:
    """R8: vLLM up to 0.17; text around it is kept."""
    shown, _ = read(
        said("Let me see. "),
        said('<tool_call>{"name": "f"'),
        said("}</tool_call> Done."),
        completed(message("Let me see.  Done."), function_call("f", "{}")),
    )
    assert shown == [("message", "Let me see.  Done."), ("f", "{}")]


def test_markup_that_was_no_call_is_delivered_as_text() -> None:
    """R8: an answer that explains the markup, or a server without a parser."""
    shown, _ = read(said("Write <tool_call> "), said("first."), completed(message("whatever")))
    assert shown == [("message", "Write <tool_call> first.")]


@pytest.mark.parametrize("end", [b"", event("failed", response={"error": {"message": "x"}})])
def test_markup_of_a_turn_that_failed_is_no_text(end: bytes) -> None:
    """R8: half a call is not for people."""
    shown, stream = read(said("Well. <tool_call>{"), *([end] if end else []))
    assert shown == [("message", "Well. ")]
    assert stream.outcome is not None
    assert stream.outcome.error is not None


@pytest.mark.parametrize("end", ["eof", "failed", "garbage"])
def test_prose_that_ends_like_markup_is_delivered_when_the_turn_fails(end: str) -> None:
    """R8: the tail that might have become a token is text."""
    ends = {"eof": [], "failed": [b'{"error":"x"}'], "garbage": [b"{"]}
    shown, _ = read(said("a <tool"), *ends[end])
    assert shown == [("message", "a <tool")]


def test_without_tools_nothing_is_held() -> None:
    """No declared tools, no calls, no waiting."""
    stream = ResponsesStream(TurnRules())
    assert stream.receive(said("<tool_call>")) == [
        ItemStarted("message"),
        TextDelta("<tool_call>"),
    ]
    assert stream.held == 0


@pytest.mark.parametrize(
    "following",
    [
        [arguments("c", "{}")],
        [event("reasoning_text.delta", delta="hm", item_id="r")],
        [event("reasoning_summary_text.delta", delta="hm", item_id="r")],
        [said("next", "m2")],
        [event("output_item.done", item={"type": "message", "id": "m"}), said("next", "m2")],
    ],
    ids=["a call", "reasoning", "a summary", "another message", "the end of the message"],
)
def test_text_that_ends_like_markup_stays_before_what_follows_it(following: list[bytes]) -> None:
    """R8: whole and in order, also across items."""
    shown, _ = read(added("c", "f"), said("a <"), *following, completed())
    assert shown[0] == ("message", "a <")
    assert len(shown) == 2


def test_a_beginning_of_markup_does_not_cut_a_call_in_two() -> None:
    """R7, R8: the call keeps its arguments; the text comes behind it."""
    shown, _ = read(
        added("c", "f"), arguments("c", '{"a":'), said("<"), arguments("c", "1}"), completed()
    )
    assert shown == [("f", '{"a":1}'), ("message", "<")]


PROSE = st.lists(
    st.sampled_from(BEGINNINGS) | st.text("ab <", max_size=3),
    max_size=6,
)


@settings(max_examples=150, deadline=None, derandomize=True)
@given(PROSE, st.integers(1, 7), st.booleans())
def test_prose_is_delivered_whole_in_any_split(pieces: list[str], size: int, fails: bool) -> None:
    """R8: with beginnings of start tokens everywhere; whether the turn completes or breaks off."""
    prose = "x".join(pieces)
    if not is_prose(prose):
        return
    deltas = [said(prose[at : at + size]) for at in range(0, len(prose), size)]
    shown, _ = read(*deltas, *([] if fails else [completed(message(prose))]))
    got = "".join(text for _, text in shown)
    # The end of a turn that broke off may be half a call: from a token on, it is not for people.
    assert got == prose or (
        fails and prose.startswith(got) and prose[len(got) :].startswith(TOKENS)
    )
    assert len(shown) == bool(got)


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
    stream = ResponsesStream(msgspec.structs.replace(DECLARED, structured=True))
    assert stream.receive(said(text)) == [ItemStarted("message"), TextDelta(text)]


# -- reasoning that swallows calls ---------------------------------------------------------------------


def thought(delta: str, key: str = "r") -> bytes:
    return event("reasoning_text.delta", delta=delta, item_id=key)


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


# -- what the deltas left out ------------------------------------------------------------------------


def test_items_that_were_never_streamed_come_from_the_terminal_object() -> None:
    """R5, R8: all of them, each of its own."""
    shown, _ = read(
        completed(
            {"type": "reasoning", "content": [{"type": "reasoning_text", "text": "hm"}]},
            {"type": "reasoning", "summary": [{"type": "summary_text", "text": "so"}]},
            message("one", "more"),
            message("two"),
            {"type": "message", "content": [{"type": "refusal", "refusal": "no"}]},
            function_call("f", "{}"),
            function_call("f", ""),
        )
    )
    assert shown == [
        ("reasoning", "hm"),
        ("reasoning", "so"),
        ("message", "onemore"),
        ("message", "two"),
        ("message", "no"),
        ("f", "{}"),
        ("f", "{}"),
    ]


def test_what_was_streamed_is_not_said_again() -> None:
    """The terminal object repeats it, with other ids and white space."""
    shown, _ = read(said("Hello "), completed(message("Hello"), message("Hello ")))
    assert shown == [("message", "Hello ")]


def test_empty_items_are_not_made() -> None:
    """vLLM's empty messages are no items."""
    shown, stream = read(completed(message(), message(""), {"type": "reasoning", "content": None}))
    assert shown == []
    assert stream.outcome is not None
    assert stream.outcome.error is None


# -- how it ends -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("end", "reason"),
    [
        (event("completed", response={"status": "incomplete"}), "max_output_tokens"),
        (event("incomplete", response={"status": "incomplete"}), "max_output_tokens"),
        (event("incomplete", response={}), "max_output_tokens"),
        (event("incomplete"), "max_output_tokens"),
        (
            event(
                "completed",
                response={
                    "status": "incomplete",
                    "incomplete_details": {"reason": "content_filter"},
                },
            ),
            "content_filter",
        ),
        (event("completed", response={"status": "completed"}), None),
        (event("completed", response={"incomplete_details": {"reason": "x"}}), None),
        (event("completed"), None),
    ],
)
def test_a_cut_is_known_by_status_or_by_event(end: bytes, reason: str | None) -> None:
    """R9: with the server's reason, or the usual one."""
    _, stream = read(end)
    assert stream.outcome is not None
    assert (stream.outcome.error, stream.outcome.incomplete_reason) == (None, reason)


@pytest.mark.parametrize(
    ("end", "part"),
    [
        (b'{"error":{"message":"engine dead","type":"x","code":500}}', "engine dead"),
        (b'{"error":"engine dead"}', "engine dead"),
        (b'{"type":"error","message":"engine dead","code":"x"}', "engine dead"),
        (b'{"type":"error","error":{"message":"engine dead"}}', "engine dead"),
        (event("failed", response={"error": {"message": "engine dead"}}), "engine dead"),
        (event("failed", response={}), "reported a failure"),
        (event("failed"), "reported a failure"),
        (event("completed", response={"status": "failed"}), "reported a failure"),
        (event("completed", response={"status": "cancelled"}), "reported a failure"),
        (b"{", "not valid"),
        (b"null", "not valid"),
        (said(1), "not valid"),  # type: ignore[arg-type]
        (b'{"type":"response.output_text.delta","delta":"\xff"}', "not valid"),
        (b'{"type":"response.output_text.delta","delta":' + b"[" * 100_000, "not valid"),
    ],
)
def test_a_failure_is_known_in_all_its_forms(end: bytes, part: str) -> None:
    """R1: chat-style error frames, error events, failed responses, nonsense."""
    _, stream = read(end, said("never read"))
    assert stream.outcome is not None
    assert stream.outcome.error is not None
    assert part in stream.outcome.error.message


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b" ",
        b"[DONE]",
        b"[DONE] ",
        b'{"type":"response.surprise","delta":{"a":[]},"item":7,"message":{}}',
        b'{"type":"ping"}',
        b"{}",
        event("output_text.delta", delta=None),
        event("output_item.added"),
        event("output_item.done"),
        event("output_text.done", text="bogus"),
        event("mcp_call.in_progress", item_id="x"),
    ],
)
def test_what_is_not_understood_is_passed_over(data: bytes) -> None:
    """Servers add events, and say empty things."""
    shown, stream = read(data, said("Hi"), data, completed())
    assert shown == [("message", "Hi")]
    assert stream.outcome is not None
    assert stream.outcome.error is None


def test_half_an_emoji_is_replaced() -> None:
    """No UTF-8 can carry a lone surrogate; Python servers escape it."""
    shown, _ = read(rb'{"type":"response.output_text.delta","delta":"a\ud83d"}', completed())
    assert shown == [("message", "a�")]


def test_half_an_emoji_in_a_whole_answer_is_replaced() -> None:
    """The same in the terminal object."""
    shown, _ = read(
        rb'{"type":"response.completed","response":{"output":[{"type":"message",'
        rb'"content":[{"text":"a\ud83d"}]}]}}'
    )
    assert shown == [("message", "a�")]


def test_usage_is_read_as_far_as_it_is_there() -> None:
    """R10: missing numbers are zero, unknown ones are passed over."""
    usage = {"input_tokens": 3, "output_tokens": 4, "total_tokens": 99, "x": {"y": 1}}
    details = {"input_tokens_details": {"cached_tokens": 2}, "output_tokens_details": None}
    _, stream = read(completed(usage={**usage, **details}))
    assert stream.outcome is not None
    assert stream.outcome.usage is not None
    shown = stream.outcome.usage.shown()
    assert (shown["input_tokens"], shown["output_tokens"], shown["total_tokens"]) == (3, 4, 7)
    _, stream = read(completed(usage=None))
    assert stream.outcome is not None
    assert stream.outcome.usage is None


# -- log probabilities -------------------------------------------------------------------------------

LOGPROBS = '[\n  {"token": "Hi", "logprob": -0.1, "bytes": [], "top_logprobs": []}\n]'


@pytest.mark.parametrize(
    ("given", "count"), [(LOGPROBS, 1), ("[ ]", 0), ("null", 0), ('{"content": []}', 0)]
)
def test_logprobs_reach_the_client_in_one_line(given: str, count: int) -> None:
    """R11: a server's JSON may be spread over lines; ours may not. And only arrays are believed."""
    data = '{"type":"response.output_text.delta","delta":"Hi","logprobs":' + given + "}"
    lines = "".join(f"data: {line}\n" for line in data.split("\n"))
    frame = f"{lines}\n".encode()
    rules = TurnRules(logprobs=True)
    raw = play([frame, frame, frames.sse(json.loads(completed()))], rules=rules).raw

    [item] = response_of(check_stream(raw))["output"]
    assert len(item["content"][0]["logprobs"]) == 2 * count


def test_logprobs_that_nobody_asked_for_are_left_out() -> None:
    """What the client asked for is what it gets."""
    shown = ResponsesStream(TurnRules()).receive(said("Hi", logprobs=[{"token": "Hi"}]))
    assert shown == [ItemStarted("message"), TextDelta("Hi")]


# -- numbering that is wrong -------------------------------------------------------------------------

ANSWER = replies.stream(
    reasoning("think", "ing"), text("Hel", "lo"), call("f", '{"a":', "1}"), call("g", "{}")
)
WRONG = {
    "the same output_index": ANSWER.same_output_index(),
    "the same item id": ANSWER.same_item_id(),
    "no usage": ANSWER.usage_null(),
    "with [DONE]": ANSWER.with_done(),
    "no items announced": ANSWER.edit(
        lambda e: None if e["type"].startswith("response.output_item.a") else e
    ),
    "no items closed": ANSWER.edit(
        lambda e: None if e["type"].startswith("response.output_item.d") else e
    ),
    "no parts": ANSWER.edit(lambda e: None if "content_part" in e["type"] else e),
    "no lifecycle": ANSWER.edit(
        lambda e: None if e["type"] in ("response.created", "response.in_progress") else e
    ),
    "no sequence numbers": ANSWER.edit(
        lambda e: {k: v for k, v in e.items() if k != "sequence_number"}
    ),
    "only the end": ANSWER[-1:],
}


@pytest.mark.parametrize("what", WRONG)
def test_wrong_numbers_and_missing_events_change_nothing(what: str) -> None:
    """R4-R7: the same items come out."""
    response = response_of(check_stream(play(frames_of(WRONG[what]), tools=["f", "g"]).raw))

    shown = [
        (i["type"], i.get("arguments") or "".join(p["text"] for p in i["content"]))
        for i in response["output"]
    ]
    assert shown == [
        ("reasoning", "thinking"),
        ("message", "Hello"),
        ("function_call", '{"a":1}'),
        ("function_call", "{}"),
    ]
