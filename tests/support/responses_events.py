"""Events of a `/v1/responses` stream, one by one, and what a reader makes of them. Pure."""

from __future__ import annotations

import json
from typing import Any

from engine.response.inputs import (
    ArgumentsDelta,
    Cited,
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
            case UpstreamStarted() | UpstreamEvent() | UpstreamEnded() | Cited():
                raise AssertionError("neither tools of the server's nor sources were declared")
    return shown, stream


def thought(delta: str, key: str = "r") -> bytes:
    return event("reasoning_text.delta", delta=delta, item_id=key)
