"""`engine.upstream.responses`: a server's events to content, where servers differ or are wrong."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.response.inputs import (
    ItemStarted,
    TextDelta,
)
from engine.response.turn import TurnRules
from engine.upstream.responses import ResponsesStream
from engine.upstream.shapes import TOKENS
from tests.support import frames, replies
from tests.support.fake_model import frames_of
from tests.support.markup_forms import BEGINNINGS, is_prose
from tests.support.playback import play
from tests.support.replies import call, reasoning, text
from tests.support.responses_events import (
    added,
    arguments,
    completed,
    event,
    function_call,
    message,
    read,
    said,
)
from tests.support.stream_rules import check_stream, response_of

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
