"""The events of a log as far as they are read back, and what of the inputs that made them they tell."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from engine.api.upstream_items import event_tail, item_tail
from engine.context.owned_calls import said_by
from engine.ports import ToolDefinition, ToolOutcome
from engine.response.agenda import Listing
from engine.response.inputs import ItemKind

_NULL = msgspec.Raw(b"null")
OWNED_TYPES = ("mcp_call", "mcp_list_tools", "mcp_approval_request")
KINDS: Mapping[str, ItemKind] = {
    "message": "message",
    "reasoning": "reasoning",
    "function_call": "function_call",
}


class _Tool(msgspec.Struct, frozen=True):
    name: str
    input_schema: msgspec.Raw
    description: str | None = None
    annotations: msgspec.Raw = _NULL


class LoggedItem(msgspec.Struct, frozen=True):
    """An item in an event."""

    type: str
    id: str = ""
    status: str | None = None
    name: str | None = None
    server_label: str | None = None
    tools: list[_Tool] = []
    arguments: object = ""
    approval_request_id: object = None
    output: object = None
    error: msgspec.Raw = _NULL
    encrypted_content: str | None = None


class _Part(msgspec.Struct, frozen=True):
    type: str


class LoggedEvent(msgspec.Struct, frozen=True):
    """What of an event is needed to tell the input that made it."""

    type: str
    sequence_number: int
    delta: str = ""
    logprobs: msgspec.Raw = msgspec.Raw(b"[]")
    item_id: str = ""
    item: LoggedItem | None = None
    part: _Part | None = None


def read_listing(item: bytes) -> Listing:
    """Return the list that a stored item shows."""
    return listing_of(msgspec.json.decode(item, type=LoggedItem))


def listing_of(item: LoggedItem) -> Listing:
    """Return the list that an `mcp_list_tools` item shows."""
    tools = [
        ToolDefinition(
            name=tool.name,
            parameters=bytes(tool.input_schema),
            description=tool.description,
            annotations=_unless_null(tool.annotations),
        )
        for tool in item.tools
    ]
    error = msgspec.json.decode(item.error, type=str | None)
    return Listing(item.server_label or "", tools, error)


def outcome_of(item: LoggedItem) -> ToolOutcome:
    """Return what the dead worker was answered, but for images: those are in no log."""
    if isinstance(item.output, str):
        return ToolOutcome(text=item.output)
    return ToolOutcome(text=said_by(item.error), error=bytes(item.error))


def upstream_event(data: bytes) -> bytes:
    """Return the tail of an event of such an item."""
    return event_tail(_read(data))


_read = msgspec.json.Decoder(dict[str, object]).decode


def upstream_item(data: bytes) -> bytes:
    """Return the tail of the item of a tool that the model server ran, of an event's data."""
    item = _read(data)["item"]
    assert isinstance(item, dict)
    return item_tail(item, ended=False)


def _unless_null(raw: msgspec.Raw) -> bytes | None:
    return None if bytes(raw) == b"null" else bytes(raw)


decode = msgspec.json.Decoder(LoggedEvent).decode
