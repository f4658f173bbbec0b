"""The chat wire."""

from __future__ import annotations

from typing import Any

from extproc.demo.answer import Answer, call, reasoning, text
from extproc.demo.chat_wire import ChatReply, encode


def deltas(answer: Answer, **body: Any) -> list[dict[str, Any]]:
    chunks = ChatReply(body, answer, "seed").events()
    return [chunk["choices"][0]["delta"] for chunk in chunks if chunk["choices"]]


def finish(answer: Answer, **body: Any) -> str:
    chunks = [c for c in ChatReply(body, answer, "seed").events() if c["choices"]]
    return str(chunks[-1]["choices"][0]["finish_reason"])


def test_a_stream_opens_with_the_role_and_ends_with_the_reason() -> None:
    """Role, reasoning, content, an empty last delta."""
    assert deltas(Answer((reasoning("hm"), text("Hel", "lo")))) == [
        {"role": "assistant", "content": ""},
        {"reasoning": "hm"},
        {"content": "Hel"},
        {"content": "lo"},
        {},
    ]


def test_a_call_gives_its_name_once_and_then_arguments() -> None:
    """Id and name only in the first delta; calls are told apart by their index."""
    parts = (call("f", "{", "}", call_id="a"), call("g", "{}", call_id="b"))
    calls = [d["tool_calls"][0] for d in deltas(Answer(parts)) if "tool_calls" in d]
    assert calls[0] == {
        "id": "a",
        "type": "function",
        "index": 0,
        "function": {"name": "f", "arguments": ""},
    }
    assert [c["index"] for c in calls] == [0, 0, 0, 1, 1]
    assert calls[1] == {"index": 0, "function": {"arguments": "{"}}


def test_finish_reasons_are_those_of_vllm() -> None:
    """Length wins over calls; a call forced by name says stop."""
    called = Answer((call("f", "{}"),))
    assert finish(Answer((text("a"),))) == "stop"
    assert finish(called) == "tool_calls"
    assert finish(called, tool_choice={"type": "function", "function": {"name": "f"}}) == "stop"
    assert finish(Answer((call("f", "{}"),), cut_short=True)) == "length"


def test_usage_is_a_last_chunk_without_choices_if_asked_for() -> None:
    """include_usage, and only then."""
    answer = Answer((text("a", "b"),), input_tokens=3)
    plain = list(ChatReply({}, answer, "seed").events())
    asked = {"stream_options": {"include_usage": True}}
    *_, last = ChatReply(asked, answer, "seed").events()
    assert all(chunk["choices"] for chunk in plain)
    assert (last["choices"], last["usage"]["total_tokens"]) == ([], 5)


def test_the_whole_completion_carries_the_same() -> None:
    """Content, reasoning, calls and logprobs of the non-streaming object."""
    answer = Answer((reasoning("hm"), text("a"), call("f", "{}")), logprobs=1)
    (choice,) = ChatReply({"model": "m"}, answer, "seed").completion()["choices"]
    message = choice["message"]
    assert (message["content"], message["reasoning"]) == ("a", "hm")
    assert message["tool_calls"][0]["function"] == {"name": "f", "arguments": "{}"}
    assert choice["logprobs"]["content"][0]["token"] == "a"


def test_frames_have_no_event_line() -> None:
    """Chat streams are data lines only."""
    assert encode({"a": 1}) == b'data: {"a":1}\n\n'
