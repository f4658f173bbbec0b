"""`engine.upstream.chat`: chat streams to content, as servers really send them (backends.md §3)."""

from __future__ import annotations

import json
from typing import Any

import pytest

from engine.errors import UpstreamFailed
from engine.response.inputs import (
    ArgumentsDelta,
    Content,
    ItemStarted,
    ReasoningDelta,
    RefusalDelta,
    TextDelta,
)
from engine.upstream.chat import ChatStream
from engine.upstream.rules import TurnRules
from tests.support import markup_forms

Shown = list[tuple[str, str]]

TOOLS = TurnRules(tools=True, declared=markup_forms.TOOLS)
DONE = b"[DONE]"
USAGE = {"prompt_tokens": 9, "completion_tokens": 4, "total_tokens": 13}


def chunk(finish: str | None = None, *, usage: Any = None, **delta: Any) -> bytes:
    choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}
    whole = {"id": "c", "object": "chat.completion.chunk", "model": "m", "choices": [choice]}
    return json.dumps(whole if usage is None else {**whole, "usage": usage}).encode()


def called(
    index: int | None, name: str | None, arguments: Any, given: str | None = None, **more: Any
) -> dict[str, Any]:
    """One entry of `tool_calls`; what is None is not there."""
    function = {"name": name, "arguments": arguments}
    entry: dict[str, Any] = {"index": index, "id": given, **more}
    entry = {key: value for key, value in entry.items() if value is not None}
    return {**entry, "function": {k: v for k, v in function.items() if v is not None}}


def calls(*entries: dict[str, Any], finish: str | None = None, **delta: Any) -> bytes:
    return chunk(finish, tool_calls=list(entries), **delta)


def read(*events: bytes, rules: TurnRules = TOOLS) -> tuple[Shown, ChatStream]:
    """Return the items that come out, as (kind or name, text), and the stream at its end."""
    stream = ChatStream(rules)
    content: list[Content] = []
    for data in events:
        content += stream.receive(data)
    return shown(content + stream.end()), stream


def shown(content: list[Content]) -> Shown:
    found: Shown = []
    for piece in content:
        if isinstance(piece, ItemStarted):
            found.append((piece.name or piece.kind, ""))
        else:
            assert isinstance(piece, TextDelta | ReasoningDelta | ArgumentsDelta | RefusalDelta)
            found[-1] = (found[-1][0], found[-1][1] + piece.text)
    return found


ROLE = chunk(role="assistant", content="")
STOP, CALLED = chunk("stop"), chunk("tool_calls")
ALL_FORMS = {**markup_forms.FORMS, **markup_forms.BARE_FORMS}
PARIS = '{"city": "Paris"}'
ROME = '{"city": "Rome"}'

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
    "Ollama: whole calls, each at index 0, the end with the call": (
        [
            calls(called(0, "get_weather", PARIS, "call_1"), role="assistant", content=""),
            calls(called(0, "get_weather", ROME, "call_2")),
            chunk("tool_calls", content=""),
            DONE,
        ],
        [("get_weather", PARIS), ("get_weather", ROME)],
    ),
    "Ollama: a thought": (
        [chunk(role="assistant", content="", reasoning="hm"), chunk(content="Hi"), STOP, DONE],
        [("reasoning", "hm"), ("message", "Hi")],
    ),
    "SGLang: whole arguments, null deltas": (
        [
            chunk(role="assistant", content=None, reasoning_content=None, tool_calls=None),
            calls(called(0, "get_weather", PARIS, "call_1"), content=None),
            CALLED,
            DONE,
        ],
        [("get_weather", PARIS)],
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
    "LM Studio: empty names later on": (
        [
            calls(called(0, "get_weather", "", "1")),
            calls(called(0, "", '{"city"')),
            calls(called(0, "", ': "Paris"}')),
            CALLED,
            DONE,
        ],
        [("get_weather", PARIS)],
    ),
    "LiteLLM: all at index 0": (
        [
            calls(called(0, "get_weather", "", "a")),
            calls(called(0, None, PARIS)),
            calls(called(0, "get_time", "", "b")),
            calls(called(0, None, "{}")),
            CALLED,
        ],
        [("get_weather", PARIS), ("get_time", "{}")],
    ),
    "one function twice, all at index 0": (
        [
            calls(called(0, "get_weather", PARIS, "a")),
            calls(called(0, "get_weather", '{"city": ', "b")),
            calls(called(0, None, '"Rome"}')),
            CALLED,
        ],
        [("get_weather", PARIS), ("get_weather", ROME)],
    ),
    "no index": (
        [
            calls(called(None, "get_weather", '{"city": ', "a")),
            calls(called(None, None, '"Paris"}')),
            calls(called(None, "get_time", "{}", "b")),
            CALLED,
        ],
        [("get_weather", PARIS), ("get_time", "{}")],
    ),
    "no index and no id": (
        [calls(called(None, "get_weather", PARIS), called(None, "get_weather", ROME)), CALLED],
        [("get_weather", PARIS), ("get_weather", ROME)],
    ),
    "no id": (
        [
            calls(called(0, "get_weather", '{"city": ')),
            calls(called(1, "get_time", "{}")),
            calls(called(0, None, '"Paris"}')),
            CALLED,
        ],
        [("get_weather", PARIS), ("get_time", "{}")],
    ),
    "one id for all": (
        [
            calls(called(0, "get_weather", PARIS, "x")),
            calls(called(1, "get_time", "{}", "x")),
            CALLED,
        ],
        [("get_weather", PARIS), ("get_time", "{}")],
    ),
    "one id for two calls of one function": (
        [
            calls(called(0, "get_weather", PARIS, "x")),
            calls(called(1, "get_weather", ROME, "x")),
            CALLED,
        ],
        [("get_weather", PARIS), ("get_weather", ROME)],
    ),
    "the head again with each fragment": (
        [
            calls(called(0, "get_weather", '{"city": ', "a", type="function")),
            calls(called(0, "get_weather", '"Paris"}', "a", type="function")),
            CALLED,
        ],
        [("get_weather", PARIS)],
    ),
    "a new id with each fragment": (
        [
            calls(called(0, "get_weather", '{"city": ', "a")),
            calls(called(0, None, '"Pa', "b")),
            calls(called(0, "get_weather", 'ris"}', "c")),
            CALLED,
        ],
        [("get_weather", PARIS)],
    ),
    "a fragment under another index": (
        [
            calls(called(0, "get_weather", '{"city": ', "a")),
            calls(called(1, None, '"Paris"}')),
            CALLED,
        ],
        [("get_weather", PARIS)],
    ),
    "a fragment that belongs to nothing": (
        [
            calls(called(3, None, "{}")),
            calls(called(0, "get_time", "{}", "a")),
            calls(called(4, None, "}")),
            CALLED,
        ],
        [("get_time", "{}")],
    ),
    "the whole call again at the end": (
        [
            calls(called(0, "get_weather", PARIS, "a")),
            calls(called(0, "get_weather", PARIS, "a")),
            CALLED,
        ],
        [("get_weather", PARIS)],
    ),
    "the name behind the id": (
        [
            calls(called(0, None, "", "a")),
            calls(called(0, None, '{"city": ')),
            calls(called(0, "get_weather", '"Paris"}')),
            CALLED,
        ],
        [("get_weather", PARIS)],
    ),
    "arguments that are an object": (
        [calls(called(0, "get_weather", {"city": "Paris"}, "a")), CALLED],
        [("get_weather", '{"city":"Paris"}')],
    ),
    "joined arguments": (
        [calls(called(0, "get_weather", PARIS + ROME, "a")), CALLED],
        [("get_weather", PARIS), ("get_weather", ROME)],
    ),
    "no arguments": (
        [calls(called(0, "ping", "", "a")), calls(called(1, "get_time", "{}", "b")), STOP],
        [("ping", ""), ("get_time", "{}")],
    ),
    "interleaved calls": (
        [
            calls(called(0, "get_weather", "", "a"), called(1, "get_time", "", "b")),
            calls(called(1, None, "{")),
            calls(called(0, None, PARIS)),
            calls(called(1, None, "}")),
            CALLED,
        ],
        [("get_weather", PARIS), ("get_time", "{}")],
    ),
    "all in one delta": (
        [calls(called(0, "ping", "{}", "a"), finish="tool_calls", content="Hi", reasoning="hm")],
        [("reasoning", "hm"), ("message", "Hi"), ("ping", "{}")],
    ),
    "the old form": (
        [
            chunk(function_call={"name": "get_weather", "arguments": '{"city": '}),
            chunk(function_call={"arguments": '"Paris"}'}),
            chunk("function_call"),
        ],
        [("get_weather", PARIS)],
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
    """R5, R7: indexes, ids and names are not believed where they contradict the arguments."""
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
