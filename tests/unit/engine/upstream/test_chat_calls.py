"""`engine.upstream.chat_calls`: which call a delta means, where servers leave out what would say so."""

from __future__ import annotations

import pytest

from tests.support.chat_chunks import (
    CALLED,
    DONE,
    PARIS,
    ROME,
    STOP,
    Shown,
    called,
    calls,
    chunk,
    read,
)

# What servers send -> the calls that come of it.
STREAMS: dict[str, tuple[list[bytes], Shown]] = {
    "Ollama: whole calls, each at index 0, the end with the call": (
        [
            calls(called(0, "get_weather", PARIS, "call_1"), role="assistant", content=""),
            calls(called(0, "get_weather", ROME, "call_2")),
            chunk("tool_calls", content=""),
            DONE,
        ],
        [("get_weather", PARIS), ("get_weather", ROME)],
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
}


@pytest.mark.parametrize("server", STREAMS)
def test_every_way_of_streaming_comes_to_the_right_items(server: str) -> None:
    """R5, R7: indexes, ids and names are not believed where they contradict the arguments."""
    events, expected = STREAMS[server]
    found, stream = read(*events)
    assert found == expected
    assert stream.outcome is not None
    assert (stream.outcome.error, stream.outcome.incomplete_reason) == (None, None)
