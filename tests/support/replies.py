"""The scripted model's replies: ordinary answers, recorded ones, all kinds of refusals. Pure."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

from extproc.demo import app as demo
from extproc.demo import chat_wire, responses_wire
from extproc.demo.answer import Answer, Part, call, reasoning, text
from extproc.demo.rejection import error_body, unknown_model
from tests.support import frames, transcripts
from tests.support.scripts import CHAT, JSON_TYPE, Asked, Body, Cut, Make, Say, Script, Stream

__all__ = ["Answer", "Part", "call", "reasoning", "text"]


def stream(*parts: Part, cut_short: bool = False, **usage: Any) -> Stream:
    """An answer of these parts as vLLM 0.32 streams it (or as chat chunks, on the chat path).

    `cut_short` ends it at the token limit; input_tokens, cached_tokens, logprobs may be given.
    """
    return Stream(_spoken(Answer(parts, cut_short=cut_short, **usage)))


def body(*parts: Part, cut_short: bool = False, **usage: Any) -> Body:
    """The same as one JSON object, even to a request for a stream."""
    answer = Answer(parts, cut_short=cut_short, **usage)

    def make(asked: Asked) -> bytes:
        if asked.path == CHAT:
            return _json(chat_wire.ChatReply(asked.body, answer, asked.seed).completion())
        return _json(responses_wire.Reply(asked.body, answer, asked.seed).response())

    return Body(make)


def say(*parts: Part, cut_short: bool = False, **usage: Any) -> Script:
    """The whole script of an ordinary answer, streamed or not as the request asks."""
    given = {"cut_short": cut_short, **usage}
    return Script(Say(stream(*parts, **given), body(*parts, **given)))


def demo_stream() -> Stream:
    """What the demo model would stream to the request."""
    return Stream(lambda asked: _demo(asked).frames)


def demo_answer() -> Script:
    """What the demo model would answer, streamed or not."""
    return Script(Say(demo_stream(), Body(lambda asked: _demo(asked).body)))


def transcript(name: str) -> Script:
    """A recording (`0.18.1/parallel`); the connection breaks where the recorded one broke."""
    recorded = transcripts.load(name)
    frames = Stream(lambda asked: transcripts.replayed(recorded, asked.body))
    if recorded.cut:
        return Script(frames, Cut())
    return Script(Say(frames, Body(lambda asked: _json(transcripts.whole(recorded, asked.body)))))


def endless(count: int, delta: str = "token ") -> Stream:
    """So many text deltas and no end: the stream ends behind them without a terminal event."""

    def make(asked: Asked) -> Iterable[bytes]:
        # What stands before the first delta of a message: one chunk on chat, four events otherwise.
        opened = list(stream(text("")).make(asked))[: 2 if asked.path == CHAT else 4]
        place = transcripts.event_of(opened[-1])
        yield from opened
        for number in range(count):
            yield frames.sse(_delta(place, delta, number))

    return Stream(make)


def long_line(size: int) -> Stream:
    """One text delta whose `data:` line is longer than `size` bytes; put it between two slices."""
    place = {"content_index": 0, "item_id": "msg_long", "output_index": 0, "logprobs": []}
    fields = {**place, "delta": "x" * size, "sequence_number": 4}
    return Stream(lambda asked: [frames.sse({**fields, "type": "response.output_text.delta"})])


def raw(*writes: bytes) -> Stream:
    """These bytes and nothing else."""
    return Stream(lambda asked: writes)


def garbage(size: int = 4096) -> Stream:
    """Bytes that are neither UTF-8 nor SSE."""
    return raw(frames.noise(size))


def error_frame(message: str = "EngineCore encountered an issue.", code: int = 500) -> Stream:
    """vLLM's chat-style error inside a 200."""
    return raw(frames.sse(error_body(message, status=code, kind="InternalServerError")))


def refused(
    status: int,
    message: str,
    kind: str = "BadRequestError",
    *,
    headers: Mapping[str, str] | None = None,
    padding: int = 0,
) -> Body:
    """A JSON error; `padding` bytes of message make it as large as a validation dump can be."""
    error = error_body(message + "x" * padding, status=status, kind=kind)
    return Body(lambda asked: _json(error), status, {"content-type": JSON_TYPE, **(headers or {})})


def bad_request(size: int = 0) -> Body:
    """A 400; `size` is the least size of its body (vLLM reaches 23 MB)."""
    return refused(400, "1 validation error", "Bad Request", padding=size)


def no_such_model() -> Body:
    return Body(lambda asked: _json(unknown_model(str(asked.body.get("model"))).body), 404)


def unavailable(retry_after: int = 1) -> Body:
    headers = {"retry-after": str(retry_after)}
    return refused(503, "Server is overloaded.", "ServiceUnavailableError", headers=headers)


def rate_limited(retry_after: int = 1) -> Body:
    return refused(429, "Too many.", "RateLimitError", headers={"retry-after": str(retry_after)})


def server_error() -> Body:
    return refused(500, "Internal server error", "InternalServerError")


def plain_server_error(status: int = 500) -> Body:
    """What a crashed ASGI server or a proxy sends: no JSON at all."""
    return Body(lambda asked: b"Internal Server Error", status, {"content-type": "text/plain"})


def _spoken(answer: Answer) -> Make:
    def make(asked: Asked) -> Iterable[bytes]:
        if asked.path == CHAT:
            reply = chat_wire.ChatReply(asked.body, answer, asked.seed)
            return [*map(chat_wire.encode, reply.events()), chat_wire.DONE]
        events = responses_wire.Reply(asked.body, answer, asked.seed).events()
        return map(responses_wire.encode, events)

    return make


def _demo(asked: Asked) -> demo.Spoken:
    speak = demo.complete if asked.path == CHAT else demo.respond
    return speak(dict(asked.body), asked.seed)


def _json(value: object) -> bytes:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode()


def _delta(place: frames.Event, delta: str, number: int) -> frames.Event:
    if "choices" in place:
        choice = place["choices"][0] | {"delta": {"content": delta}, "finish_reason": None}
        return place | {"choices": [choice]}
    kept = {key: place[key] for key in ("content_index", "item_id", "output_index")}
    numbered = {**kept, "delta": delta, "logprobs": [], "sequence_number": 4 + number}
    return {**numbered, "type": "response.output_text.delta"}
