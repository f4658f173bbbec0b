"""An answer as vLLM 0.32 puts it on `/v1/responses`: the events of a stream, or one object. Pure.

One thing is newer: an answer cut by the token limit ends in `response.incomplete`, as from 0.33 on.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import msgspec

from extproc.demo.answer import Answer, Call, Part, Text, Thought
from extproc.demo.logprobs import entries

Body = Mapping[str, Any]
Event = dict[str, Any]

MAX_MODEL_LEN = 1_048_576

# vLLM builds these from the request, with these values where the request is silent.
_ECHOED: Mapping[str, Any] = {
    "parallel_tool_calls": True,
    "temperature": 1.0,
    "tool_choice": "auto",
    "top_p": 1.0,
    "max_tool_calls": None,
    "prompt": None,
    "reasoning": None,
    "service_tier": "auto",
    "text": None,
    "top_logprobs": None,
    "truncation": "disabled",
    "user": None,
    "presence_penalty": 0.0,
    "frequency_penalty": 0.0,
}
_FUNCTION_TOOL = ("name", "parameters", "strict", "type", "allowed_callers", "async")
_FUNCTION_TOOL_REST = ("defer_loading", "description", "output_schema")


def encode(event: Event) -> bytes:
    """One SSE frame, in vLLM's spelling."""
    return b"event: %s\ndata: %s\n\n" % (event["type"].encode(), msgspec.json.encode(event))


@dataclass(frozen=True)
class Reply:
    """One answer to one request. `seed` makes the ids, so that equal seeds give equal bytes."""

    body: Body
    answer: Answer
    seed: str
    created_at: int = 1_700_000_000

    def events(self) -> Iterator[Event]:
        """The stream, numbered."""
        for number, event in enumerate(self._unnumbered()):
            kind = event.pop("type")
            yield {**event, "sequence_number": number, "type": kind}

    def response(self) -> dict[str, Any]:
        """The object of the terminal event, which is also the whole non-streaming body."""
        cut = self.answer.cut_short
        return self._response(
            status="incomplete" if cut else "completed",
            incomplete_details={"reason": "max_output_tokens"} if cut else None,
            output=[self._done_item(at) for at in range(len(self.answer.parts))],
            usage=usage(self.answer),
        )

    def _unnumbered(self) -> Iterator[Event]:
        for kind in ("response.created", "response.in_progress"):
            yield {"response": self._response(status="in_progress", output=[]), "type": kind}
        for at, part in enumerate(self.answer.parts):
            added = {"item": self._open_item(at), "output_index": at}
            yield {**added, "type": "response.output_item.added"}
            yield from self._inside(at, part)
            done = {"item": self._done_item(at), "output_index": at}
            yield {**done, "type": "response.output_item.done"}
        response = self.response()
        yield {"response": response, "type": f"response.{response['status']}"}

    def _inside(self, at: int, part: Part) -> Iterator[Event]:
        place = {"item_id": self._item_id(at), "output_index": at}
        match part:
            case Thought():
                return self._in_thought(place, part)
            case Text():
                return self._in_text(place, part)
            case Call(custom=False):
                return self._in_function_call(place, part)
            case Call():
                return self._in_custom_call(place, part)

    def _in_thought(self, place: Event, part: Thought) -> Iterator[Event]:
        place = {"content_index": 0, **place}
        empty = {"text": "", "type": "reasoning_text"}
        whole = "".join(part.deltas)
        yield {**place, "part": empty, "type": "response.content_part.added"}
        for delta in part.deltas:
            yield {**place, "delta": delta, "type": "response.reasoning_text.delta"}
        yield {**place, "text": whole, "type": "response.reasoning_text.done"}
        yield {**place, "part": {**empty, "text": whole}, "type": "response.content_part.done"}

    def _in_text(self, place: Event, part: Text) -> Iterator[Event]:
        place = {"content_index": 0, **place}
        empty = {"annotations": [], "text": "", "type": "output_text", "logprobs": []}
        probs = self.answer.logprobs
        yield {**place, "part": empty, "type": "response.content_part.added"}
        for delta in part.deltas:
            at_delta = {**place, "delta": delta, "logprobs": entries((delta,), probs)}
            yield {**at_delta, "type": "response.output_text.delta"}
        done = {**place, "logprobs": entries(part.deltas, probs), "text": "".join(part.deltas)}
        yield {**done, "type": "response.output_text.done"}
        yield {**place, "part": self._text_part(part), "type": "response.content_part.done"}

    def _in_function_call(self, place: Event, part: Call) -> Iterator[Event]:
        for delta in part.deltas:
            yield {**place, "delta": delta, "type": "response.function_call_arguments.delta"}
        done = {**place, "arguments": "".join(part.deltas), "name": part.name}
        yield {**done, "type": "response.function_call_arguments.done"}

    def _in_custom_call(self, place: Event, part: Call) -> Iterator[Event]:
        for delta in part.deltas:
            yield {**place, "delta": delta, "type": "response.custom_tool_call_input.delta"}
        done = {**place, "input": "".join(part.deltas)}
        yield {**done, "type": "response.custom_tool_call_input.done"}

    def _open_item(self, at: int) -> dict[str, Any]:
        part = self.answer.parts[at]
        match part:
            case Thought():
                fields: dict[str, Any] = {"summary": [], "type": "reasoning", "content": None}
                return self._item(at, **fields, encrypted_content=None)
            case Text():
                return self._item(at, content=[], role="assistant", type="message", phase=None)
            case Call():
                return self._item(at, **self._call_fields(at, part, ""))

    def _done_item(self, at: int) -> dict[str, Any]:
        part = self.answer.parts[at]
        unfinished = self.answer.cut_short and at == len(self.answer.parts) - 1
        done: dict[str, Any] = {"status": "incomplete" if unfinished else "completed"}
        match part:
            case Thought():
                done["content"] = [{"text": "".join(part.deltas), "type": "reasoning_text"}]
            case Text():
                done["content"] = [self._text_part(part)]
            case Call():
                done |= self._call_fields(at, part, "".join(part.deltas))
        return self._open_item(at) | done

    def _item(self, at: int, **fields: Any) -> dict[str, Any]:
        return {"id": self._item_id(at), **fields, "status": "in_progress"}

    def _call_fields(self, at: int, part: Call, given: str) -> dict[str, Any]:
        call_id = part.call_id or f"chatcmpl-tool-{self._hex(f'call {at}')}"
        kind = "custom_tool_call" if part.custom else "function_call"
        fields = {"call_id": call_id, "name": part.name, "type": kind}
        fields["input" if part.custom else "arguments"] = given
        return {**fields, "async": None, "caller": None, "namespace": None}

    def _text_part(self, part: Text) -> dict[str, Any]:
        # Null where none were asked for, although the deltas say []: so it is in the recordings.
        probs = self.answer.logprobs
        logprobs = None if probs is None else entries(part.deltas, probs, with_bytes=True)
        whole = "".join(part.deltas)
        return {"annotations": [], "text": whole, "type": "output_text", "logprobs": logprobs}

    def _item_id(self, at: int) -> str:
        return f"{_prefix(self.answer.parts[at])}_{self._hex(f'item {at}')}"

    def _hex(self, what: str, digits: int = 16) -> str:
        return hashlib.sha256(f"{self.seed} {what}".encode()).hexdigest()[:digits]

    def _response(self, **fields: Any) -> dict[str, Any]:
        return {**self._echo, **fields}

    @cached_property
    def _echo(self) -> dict[str, Any]:
        body = self.body
        echoed = {
            key: default if body.get(key) is None else body[key] for key, default in _ECHOED.items()
        }
        tools = [_echoed_tool(tool) for tool in body.get("tools") or ()]
        budget = MAX_MODEL_LEN - self.answer.input_tokens
        return {
            "id": body.get("request_id") or f"resp_{self._hex('response', 32)}",
            "created_at": self.created_at,
            "incomplete_details": None,
            "instructions": body.get("instructions"),
            "metadata": body.get("metadata"),
            "model": body.get("model") or "demo",
            "object": "response",
            **echoed,
            "tool_choice": echoed["tool_choice"] if tools else "none",
            "tools": tools,
            "background": False,
            "max_output_tokens": body.get("max_output_tokens") or budget,
            "previous_response_id": None,
            "usage": None,
            "kv_transfer_params": None,
            "ec_transfer_params": None,
            "input_messages": None,
            "output_messages": None,
        }


def usage(answer: Answer) -> dict[str, Any]:
    """vLLM's usage object, with the keys that no specification has."""
    given, made = answer.input_tokens, answer.output_tokens
    return {
        "input_tokens": given,
        "input_tokens_details": {
            "cached_tokens": answer.cached_tokens,
            "cache_write_tokens": 0,
            "input_tokens_per_turn": [given],
            "cached_tokens_per_turn": [answer.cached_tokens],
        },
        "output_tokens": made,
        "output_tokens_details": {
            "reasoning_tokens": answer.reasoning_tokens,
            "tool_output_tokens": 0,
            "output_tokens_per_turn": [made],
            "tool_output_tokens_per_turn": [0],
        },
        "total_tokens": given + made,
    }


def _prefix(part: Part) -> str:
    match part:
        case Thought():
            return "rs"
        case Text():
            return "msg"
        case Call(custom=custom):
            return "ctc" if custom else "fc"


def _echoed_tool(tool: Body) -> dict[str, Any]:
    if tool["type"] != "function":
        return dict(tool)
    return {key: tool.get(key) for key in (*_FUNCTION_TOOL, *_FUNCTION_TOOL_REST)}
