"""Items and events of tools that the model server runs itself: passed through, under our ids and numbers.

What is kept of them is their own JSON without what counts and names: that is ours (rules R3, R4).
"""

from __future__ import annotations

from collections.abc import Mapping

from engine.api.json import encode

# Items that are read and made anew, and calls that the caller would have to answer.
_NOT_PASSED = frozenset(
    (
        "message", "reasoning", "function_call", "function_call_output", "custom_tool_call", "computer_call",
        "local_shell_call", "shell_call", "apply_patch_call", "tool_search_call", "compaction",
    )
)  # fmt: skip
_ENDED = ("completed", "failed", "incomplete")
_PREFIXES = {
    "mcp_call": "mcp",
    "mcp_list_tools": "mcpl",
    "mcp_approval_request": "mcpr",
    "web_search_call": "ws",
    "file_search_call": "fs",
    "code_interpreter_call": "ci",
    "image_generation_call": "ig",
}
_OURS = ("type", "sequence_number", "item_id", "output_index")


def is_passed(kind: object) -> bool:
    """True for the type of an item that is passed through."""
    return isinstance(kind, str) and kind != "" and kind not in _NOT_PASSED


def id_prefix(kind: str) -> str:
    """Return how the ids of such items begin."""
    return _PREFIXES.get(kind, "item")


def belongs(event: str, kind: str) -> bool:
    """True if an event of this type is one of an item of that type: `response.<item's type>…`."""
    return event.startswith(f"response.{kind}")


def item_tail(item: Mapping[str, object], *, ended: bool) -> bytes:
    """Return the item without its id, from the comma behind that on; one that has ended says so."""
    kept = {key: value for key, value in item.items() if key != "id"}
    if ended and "status" in kept and kept["status"] not in _ENDED:
        kept["status"] = "completed"
    return b"," + encode(kept)[1:]


def event_tail(event: Mapping[str, object]) -> bytes:
    """Return the event's own fields, `,"key":value…`."""
    kept = {key: value for key, value in event.items() if key not in _OURS}
    return b"," + encode(kept)[1:-1] if kept else b""
