"""`engine.upstream.chat`: chat streams to content, as servers really send them."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.errors import UpstreamFailed
from engine.response.inputs import (
    Content,
    TextDelta,
)
from engine.response.turn import TurnRules
from engine.upstream.chat import ChatStream
from tests.support import markup_forms
from tests.support.chat_chunks import (
    ALL_FORMS,
    DONE,
    PARIS,
    ROLE,
    STOP,
    TOOLS,
    USAGE,
    Shown,
    called,
    calls,
    chunk,
    read,
    shown,
)

# What servers send -> the items that come of it.
STREAMS: dict[str, tuple[list[bytes], Shown]] = {
    "vLLM": (
        [
            ROLE,
            chunk(reasoning="hm"),
            chunk(content="Hel"),
            chunk(content="lo"),
            STOP,
            json.dumps({"choices": [], "usage": USAGE}).encode(),
            DONE,
        ],
        [("reasoning", "hm"), ("message", "Hello")],
    ),
    "llama.cpp": (
        [
            chunk(role="assistant", content=None),
            chunk(reasoning_content="hm"),
            chunk(content="Hi"),
            json.dumps(
                {
                    "choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}],
                    "timings": {"a": 1},
                    "usage": USAGE,
                }
            ).encode(),
            DONE,
        ],
        [("reasoning", "hm"), ("message", "Hi")],
    ),
    "Ollama: a thought": (
        [chunk(role="assistant", content="", reasoning="hm"), chunk(content="Hi"), STOP, DONE],
        [("reasoning", "hm"), ("message", "Hi")],
    ),
    "OpenRouter: both spellings of a thought, usage with the end": (
        [
            chunk(
                role="assistant",
                content="",
                reasoning="hm",
                reasoning_content="hm",
                reasoning_details=[{"type": "reasoning.text", "text": "hm"}],
            ),
            chunk(content="Hi"),
            chunk("stop", content="", usage=USAGE),
            DONE,
        ],
        [("reasoning", "hm"), ("message", "Hi")],
    ),
    "a refusal": ([chunk(refusal="no"), STOP, DONE], [("message", "no")]),
    "parts": (
        [
            chunk(content=[{"type": "thinking", "thinking": [{"type": "text", "text": "hm"}]}]),
            chunk(content=[{"type": "text", "text": "Hi"}]),
            STOP,
        ],
        [("reasoning", "hm"), ("message", "Hi")],
    ),
    "a thought in the text": (
        [
            chunk(content="<thi"),
            chunk(content="nk>\nhm"),
            chunk(content="</think>\n"),
            chunk(content="\nHi"),
            STOP,
        ],
        [("reasoning", "hm"), ("message", "Hi")],
    ),
    "a thought, and calls as text": (
        [chunk(content="<think>hm</think>"), chunk(content=markup_forms.FORMS["mistral"][0]), STOP],
        [("reasoning", "hm"), ("get_weather", PARIS), ("get_time", '{"tz": "CET"}')],
    ),
    "a call that a thought swallowed": (
        [chunk(content="<think>hm "), chunk(content=markup_forms.FORMS["hermes"][0]), STOP],
        [("reasoning", "hm "), ("get_weather", PARIS)],
    ),
    "another choice": (
        [
            chunk(content="Hi"),
            json.dumps({"choices": [{"index": 1, "delta": {"content": "x"}}]}).encode(),
            STOP,
        ],
        [("message", "Hi")],
    ),
    "no finish reason": ([chunk(content="Hi"), DONE], [("message", "Hi")]),
    "empty events": (
        [b"", b" ", ROLE, b"{}", chunk(content="Hi"), STOP, DONE, DONE],
        [("message", "Hi")],
    ),
    "nothing": ([ROLE, STOP, DONE], []),
}


@pytest.mark.parametrize("server", STREAMS)
def test_every_way_of_streaming_comes_to_the_right_items(server: str) -> None:
    """R5, R8: all spellings of a thought, nulls, ends with and without usage."""
    events, expected = STREAMS[server]
    found, stream = read(*events)
    assert found == expected
    assert stream.outcome is not None
    assert (stream.outcome.error, stream.outcome.incomplete_reason) == (None, None)


@pytest.mark.parametrize("form", ALL_FORMS)
def test_calls_as_text_are_calls(form: str) -> None:
    """R8: there is no terminal object in chat: the markup is read here."""
    text, expected = ALL_FORMS[form]
    for size in (1, len(text)):
        deltas = [chunk(content=text[at : at + size]) for at in range(0, len(text), size)]
        found, _ = read(*deltas, STOP, DONE)
        assert [(name, json.loads(given)) for name, given in found] == expected


@settings(max_examples=200, deadline=None, derandomize=True)
@given(
    st.lists(
        st.sampled_from(markup_forms.BEGINNINGS) | st.text("ab <[{\n", max_size=3), max_size=6
    ),
    st.integers(1, 7),
)
def test_prose_is_delivered_whole_in_any_split(pieces: list[str], size: int) -> None:
    """R8: any prefix of any markup, also where functions were declared that it could name."""
    prose = "x".join(pieces)
    if not markup_forms.is_prose(prose):
        return
    deltas = [chunk(content=prose[at : at + size]) for at in range(0, len(prose), size)]
    found, _ = read(*deltas, STOP, DONE)
    assert found == ([("message", prose)] if prose else [])


@pytest.mark.parametrize(
    ("finish", "reason"),
    [
        ("length", "max_output_tokens"),
        ("content_filter", "content_filter"),
        ("stop", None),
        ("eos", None),
        ("", None),
    ],
)
def test_a_finish_reason_is_a_cut_or_an_end(finish: str, reason: str | None) -> None:
    """R9: whatever servers call their ends."""
    _, stream = read(chunk(content="Hi"), chunk(finish), DONE)
    assert stream.outcome is not None
    assert (stream.outcome.error, stream.outcome.incomplete_reason) == (None, reason)


FAILURES: dict[str, tuple[list[bytes], str]] = {
    "an error frame": (
        [b'{"error":{"message":"engine dead","type":"x","code":500}}', DONE],
        "engine dead",
    ),
    "an error that is text": ([b'{"error":"engine dead"}'], "engine dead"),
    "an error at the top": (
        [b'{"object":"error","message":"engine dead","code":400}'],
        "engine dead",
    ),
    "an error beside choices": (
        [
            b'{"choices":[{"index":0,"delta":{},"finish_reason":"error"}],"error":{"message":"engine dead"}}'
        ],
        "engine dead",
    ),
    "an error in a choice": (
        [
            b'{"choices":[{"index":0,"error":{"message":"engine dead","code":502},"finish_reason":"error"}]}'
        ],
        "engine dead",
    ),
    "an abort": ([chunk("abort")], "ended the answer with 'abort'"),
    "the end": ([], "without a finish reason"),
    "garbage": ([b"{"], "not valid"),
    "another kind": ([b'{"choices":"x"}'], "not valid"),
}


@pytest.mark.parametrize("how", FAILURES)
def test_a_failure_is_known_in_all_its_forms(how: str) -> None:
    """R1: inside a 200; what came before it is kept, what comes behind it is not read."""
    events, part = FAILURES[how]
    found, stream = read(
        chunk(content="Hi <tool"), *events, *([chunk(content="x")] if events else [])
    )
    assert found == [("message", "Hi <tool")]
    assert stream.outcome is not None
    assert isinstance(stream.outcome.error, UpstreamFailed)
    assert part in stream.outcome.error.message


def test_a_stream_of_nothing_failed() -> None:
    """R1: `[DONE]` alone is no answer."""
    for events in ([], [DONE], [b'{"choices":[]}', DONE]):
        found, stream = read(*events)
        assert found == []
        assert stream.outcome is not None
        assert stream.outcome.error is not None


@pytest.mark.parametrize(
    ("usage", "counts"),
    [
        (USAGE, (9, 0, 4, 0)),
        (
            {
                **USAGE,
                "prompt_tokens_details": {"cached_tokens": 5},
                "completion_tokens_details": {"reasoning_tokens": 2},
            },
            (9, 5, 4, 2),
        ),
        (
            {
                **USAGE,
                "prompt_tokens_details": None,
                "prompt_cache_hit_tokens": 5,
                "reasoning_tokens": 2,
            },
            (9, 5, 4, 2),
        ),
        ({}, (0, 0, 0, 0)),
    ],
)
def test_usage_is_read_wherever_it_stands(usage: Any, counts: tuple[int, ...]) -> None:
    """R10: in a chunk of its own, with the end, or in each chunk; the last one counts."""
    own = json.dumps({"choices": [], "usage": usage}).encode()
    for events in (
        [chunk("stop"), own, DONE],
        [chunk("stop", usage=usage), DONE],
        [chunk(content="a", usage=USAGE), chunk("stop", usage=usage)],
    ):
        _, stream = read(*events)
        assert stream.outcome is not None
        found = stream.outcome.usage
        assert found is not None
        got = (found.input_tokens, found.cached_tokens, found.output_tokens, found.reasoning_tokens)
        assert got == counts


def test_log_probabilities_have_the_form_of_the_api() -> None:
    """R10: also those of text that had to wait."""
    entry = {"token": "a", "logprob": -0.5, "top_logprobs": [{"token": "b", "logprob": -1}]}
    stream = ChatStream(TurnRules(tools=True, logprobs=True))
    content: list[Content] = []
    for text in ("<", "tool", "s"):
        choice = {"index": 0, "delta": {"content": text}, "logprobs": {"content": [entry]}}
        content += stream.receive(json.dumps({"choices": [choice]}).encode())
    [_, delta] = content
    assert isinstance(delta, TextDelta)
    full = {"token": "a", "logprob": -0.5, "bytes": [97]}
    top = [{"token": "b", "logprob": -1, "bytes": [98]}]
    assert json.loads(delta.logprobs) == [{**full, "top_logprobs": top}] * 3


WHOLE = {
    "object": "chat.completion",
    "choices": [
        {
            "index": 0,
            "finish_reason": "tool_calls",
            "message": {
                "role": "assistant",
                "content": "<think>hm</think>Hi",
                "tool_calls": [
                    {"id": "a", "type": "function", "function": {"name": "ping", "arguments": "{}"}}
                ],
            },
        }
    ],
    "usage": USAGE,
}


def test_an_answer_that_is_no_stream_is_read() -> None:
    """Servers that cannot stream tools answer so."""
    stream = ChatStream(TOOLS)
    content = stream.receive_whole(json.dumps(WHOLE).encode())
    assert shown(content) == [("reasoning", "hm"), ("message", "Hi"), ("ping", "{}")]
    assert stream.outcome is not None
    assert stream.outcome.usage is not None


@pytest.mark.parametrize("body", [b"", b"{}", b"[]", b'{"choices":[]}', b'{"status":"completed"}'])
def test_an_answer_of_another_kind_is_none(body: bytes) -> None:
    """R1: an empty answer would be a lie."""
    with pytest.raises(UpstreamFailed, match="not valid"):
        ChatStream(TOOLS).receive_whole(body)


def test_a_whole_error_fails_the_turn() -> None:
    """R1: an error inside a 200."""
    stream = ChatStream(TOOLS)
    assert stream.receive_whole(b'{"error":{"message":"engine dead"}}') == []
    assert stream.outcome is not None
    assert stream.outcome.error is not None


def test_what_waits_is_counted() -> None:
    """X5: markup, arguments of calls that wait, and of those without a name."""
    stream = ChatStream(TOOLS)
    stream.receive(calls(called(0, None, "x" * 500, "a")))
    assert stream.held >= 500
    stream.receive(chunk(content="<tool_call>[{" + "x" * 500))
    assert stream.held >= 1000
