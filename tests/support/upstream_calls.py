"""Streams of model servers that run tools themselves, as vLLM tells of them. Pure."""

from __future__ import annotations

from typing import Any

from tests.support import frames
from tests.support.replies import stream
from tests.support.scripts import Stream

SEARCH: dict[str, Any] = {
    "id": "ws_theirs",
    "type": "web_search_call",
    "status": "completed",
    "action": {"type": "search", "query": "holdfast"},
}
CODE: dict[str, Any] = {
    "id": "ci_theirs",
    "type": "code_interpreter_call",
    "status": "completed",
    "code": "print(6 * 7)",
    "container_id": "auto",
    "outputs": [{"type": "logs", "logs": "42"}],
}
CALL: dict[str, Any] = {
    "id": "mcp_theirs",
    "type": "mcp_call",
    "status": "completed",
    "name": "look",
    "server_label": "theirs",
    "arguments": '{"a":1}',
    "output": "found",
    "error": None,
}
_LATER = ("outputs", "output", "error")


def told(item: dict[str, Any], *steps: str, done: bool = True, index: int = 0) -> list[bytes]:
    """The frames of one item: added, its own events (`in_progress`, `searching` …), done."""
    begun = {**item, "status": "in_progress"} | {key: None for key in _LATER if key in item}
    events: list[dict[str, Any]] = [{"type": "response.output_item.added", "item": begun}]
    events += [{"type": f"response.{item['type']}{step}", "item_id": item["id"]} for step in steps]
    if done:
        events.append({"type": "response.output_item.done", "item": item})
    return [frames.sse({**e, "output_index": index, "sequence_number": 0}) for e in events]


def with_items(*parts: Any, before: list[bytes], output: list[dict[str, Any]]) -> Stream:
    """An ordinary answer of these parts, with frames before its first item, and items in its output."""

    def supply(event: frames.Event) -> frames.Event:
        if event["type"] != "response.completed":
            return event
        response = event["response"]
        return event | {"response": response | {"output": [*output, *response["output"]]}}

    def insert(writes: Any) -> Any:
        for number, write in enumerate(writes):
            if number == 2:
                yield from before
            yield write

    return stream(*parts).edit(supply).through(insert)
