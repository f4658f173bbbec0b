"""An answer as vLLM 0.32 puts it on `/v1/chat/completions`: chunks, or one object. Pure."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import msgspec

from extproc.demo.answer import Answer, Call, Part, Text, Thought
from extproc.demo.logprobs import entries

Body = Mapping[str, Any]
Chunk = dict[str, Any]

DONE = b"data: [DONE]\n\n"


def encode(chunk: Chunk) -> bytes:
    """One SSE frame: chat has no `event:` lines."""
    return b"data: %s\n\n" % msgspec.json.encode(chunk)


@dataclass(frozen=True)
class ChatReply:
    """One answer to one chat request; `[DONE]` is not a chunk and follows the stream."""

    body: Body
    answer: Answer
    seed: str
    created: int = 1_700_000_000

    def events(self) -> Iterator[Chunk]:
        yield self._chunk({"role": "assistant", "content": ""})
        calls = 0
        for part in self.answer.parts:
            yield from self._part(part, calls)
            calls += isinstance(part, Call)
        yield self._chunk({}, finish=self._finish_reason())
        if (self.body.get("stream_options") or {}).get("include_usage"):
            yield {**self._head("chat.completion.chunk"), "choices": [], "usage": self._usage()}

    def completion(self) -> dict[str, Any]:
        """The non-streaming body."""
        parts = self.answer.parts
        thought = "".join("".join(p.deltas) for p in parts if isinstance(p, Thought))
        said = [delta for p in parts if isinstance(p, Text) for delta in p.deltas]
        calls = [part for part in parts if isinstance(part, Call)]
        message = {
            "role": "assistant",
            "content": "".join(said) if said or not calls else None,
            "refusal": None,
            "tool_calls": [
                {"id": self._call_id(at, p), "type": "function", "function": _function(p)}
                for at, p in enumerate(calls)
            ],
            "reasoning": thought or None,
        }
        choice = {
            "index": 0,
            "message": message,
            "logprobs": self._logprobs(tuple(said)),
            "finish_reason": self._finish_reason(),
            "stop_reason": None,
        }
        return {**self._head("chat.completion"), "choices": [choice], "usage": self._usage()}

    def _part(self, part: Part, at: int) -> Iterator[Chunk]:
        match part:
            case Thought():
                for delta in part.deltas:
                    yield self._chunk({"reasoning": delta})
            case Text():
                for delta in part.deltas:
                    yield self._chunk({"content": delta}, logprobs=self._logprobs((delta,)))
            case Call():
                yield from self._call(part, at)

    def _call(self, part: Call, at: int) -> Iterator[Chunk]:
        function: dict[str, str] = {"name": part.name, "arguments": ""}
        opened = {"id": self._call_id(at, part), "type": "function", "index": at}
        yield self._chunk({"tool_calls": [{**opened, "function": function}]})
        for delta in part.deltas:
            yield self._chunk({"tool_calls": [{"index": at, "function": {"arguments": delta}}]})

    def _finish_reason(self) -> str:
        if self.answer.cut_short:
            return "length"
        # vLLM says "stop" for a call that the request forced by name.
        named = isinstance(self.body.get("tool_choice"), Mapping)
        called = any(isinstance(part, Call) for part in self.answer.parts)
        return "tool_calls" if called and not named else "stop"

    def _logprobs(self, tokens: tuple[str, ...]) -> dict[str, Any] | None:
        if self.answer.logprobs is None:
            return None
        return {"content": entries(tokens, self.answer.logprobs, with_bytes=True)}

    def _usage(self) -> dict[str, Any]:
        given, made = self.answer.input_tokens, self.answer.output_tokens
        cached = self.answer.cached_tokens
        return {
            "prompt_tokens": given,
            "total_tokens": given + made,
            "completion_tokens": made,
            "prompt_tokens_details": {"cached_tokens": cached} if cached else None,
        }

    def _chunk(
        self, delta: Body, *, finish: str | None = None, logprobs: Body | None = None
    ) -> Chunk:
        choice = {"index": 0, "delta": delta, "logprobs": logprobs, "finish_reason": finish}
        return {**self._head("chat.completion.chunk"), "choices": [choice]}

    def _head(self, kind: str) -> dict[str, Any]:
        model = self.body.get("model") or "demo"
        return {
            "id": f"chatcmpl-{self._hex('chat')}",
            "object": kind,
            "created": self.created,
            "model": model,
        }

    def _call_id(self, at: int, part: Call) -> str:
        return part.call_id or f"chatcmpl-tool-{self._hex(f'call {at}')}"

    def _hex(self, what: str) -> str:
        return hashlib.sha256(f"{self.seed} {what}".encode()).hexdigest()[:16]


def _function(part: Call) -> dict[str, str]:
    return {"name": part.name, "arguments": "".join(part.deltas)}
