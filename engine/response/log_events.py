"""The events of a log as far as they are read back, and what of the inputs that made them they tell."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from engine.api.file_search import CALL as FILE_SEARCH_CALL
from engine.api.file_search import FILE_SEARCH
from engine.api.upstream_items import event_tail, item_tail
from engine.context.owned_calls import said_by
from engine.ports import ToolDefinition, ToolOutcome
from engine.response.agenda import Listing
from engine.response.inputs import ItemKind
from engine.response.notes import Held

_NULL = msgspec.Raw(b"null")
OWNED_TYPES = ("mcp_call", "mcp_list_tools", "mcp_approval_request", FILE_SEARCH_CALL)
KINDS: Mapping[str, ItemKind] = {
    "message": "message",
    "reasoning": "reasoning",
    "function_call": "function_call",
}
ITEM_ADDED = "response.output_item.added"
OPENING = ("response.created", "response.queued", "response.in_progress")
CALL_ENDED = (
    "response.mcp_call.completed",
    "response.mcp_call.failed",
    "response.file_search_call.completed",
)
CALLS = ("mcp_call", FILE_SEARCH_CALL)
PART_ADDED = ("response.content_part.added", "response.reasoning_summary_part.added")
# Made by what opens or closes what is around them.
IMPLIED = (
    *PART_ADDED,
    "response.content_part.done",
    "response.reasoning_summary_part.done",
    "response.output_text.done",
    "response.refusal.done",
    "response.reasoning_text.done",
    "response.reasoning_summary_text.done",
    "response.function_call_arguments.done",
    "response.mcp_call.in_progress",
    "response.file_search_call.in_progress",
    "response.mcp_list_tools.in_progress",
    "response.mcp_list_tools.completed",
    "response.mcp_list_tools.failed",
)


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
    results: msgspec.Raw = _NULL

    @property
    def label(self) -> str:
        """What its provider is called."""
        return FILE_SEARCH if self.type == FILE_SEARCH_CALL else self.server_label or ""

    @property
    def tool(self) -> str:
        """The tool's own name."""
        return FILE_SEARCH if self.type == FILE_SEARCH_CALL else self.name or ""


class Citation(msgspec.Struct, frozen=True):
    """A citation in an event."""

    file_id: str
    filename: str


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
    annotation: Citation | None = None


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
    error = msgspec.json.decode(item.error)
    if error is not None and not isinstance(error, str):
        # A client's own item may have an object there, as calls do.
        error = bytes(item.error).decode()
    return Listing(item.server_label or "", tools, error)


def outcome_of(item: LoggedItem) -> ToolOutcome:
    """Return what the dead worker was answered, but for images: those are in no log."""
    if isinstance(item.output, str):
        return ToolOutcome(text=item.output)
    return ToolOutcome(text=said_by(item.error), error=bytes(item.error))


def search_outcome(item: LoggedItem, held: Held) -> ToolOutcome:
    """Return what a search of the dead worker's has found."""
    if item.status == "failed":
        return ToolOutcome(text=held.text, error=b"null")
    results = held.results if bytes(item.results) == b"null" else item.results
    return ToolOutcome(text="", fields=(("results", bytes(results)),))


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
