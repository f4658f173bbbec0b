"""Chunks of a chat stream, one by one, and what a reader makes of them. Pure."""

from __future__ import annotations

import json
from typing import Any

from engine.response.inputs import (
    ArgumentsDelta,
    Content,
    ItemStarted,
    ReasoningDelta,
    RefusalDelta,
    TextDelta,
)
from engine.response.turn import TurnRules
from engine.upstream.chat import ChatStream
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
