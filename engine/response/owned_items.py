"""Items of the tools that the gateway runs: lists, calls, and requests for consent (rules T1, T5, T6)."""

from __future__ import annotations

import msgspec

from engine.api.events import EventWriter
from engine.api.json import encode
from engine.api.mcp import McpTool
from engine.ports import AskedApproval, StoredItem, ToolOutcome
from engine.response.agenda import Listing
from engine.response.consent import Asking
from engine.response.inputs import ArgumentsDelta
from engine.response.open_items import Item, OpenCall
from engine.response.owned_call import OpenOwnedCall


class OpenMcpCall(OpenOwnedCall):
    """A call of an MCP server's tool, or of an operator's own."""

    kind = "mcp_call"
    prefix = "mcp"
    family = b"response.mcp_call_arguments"

    _outcome: ToolOutcome | None = None

    def opened(self) -> bytes:
        """Return `output_item.added` and `.in_progress`."""
        return super().opened() + self._events.event(b"response.mcp_call.in_progress", self._place)

    def whole(self) -> bytes:
        """Return the events that end the arguments."""
        return self.arguments_done()

    def ended(self, outcome: ToolOutcome) -> tuple[bytes, StoredItem]:
        """Return the closing events, and the item with what the model is told of the call (rule M4)."""
        self._outcome = outcome
        status = "failed" if outcome.failed else "completed"
        frames = self._events.event(b"response.mcp_call." + status.encode(), self._place)
        done, item = self.closed(status)
        return frames + done, self._stored(item, self._pair(self.arguments, outcome))

    def json(self, status: str) -> Item:
        """Return the call; `output` and `error` are null until they are known."""
        label, name = self.key
        outcome = self._outcome
        item: Item = {
            "id": self.id,
            "type": self.kind,
            "status": status,
            "approval_request_id": self.request_id,
            "arguments": self.arguments,
            "error": None,
            "name": name,
            "output": None,
            "server_label": label,
        }
        if outcome is not None:
            if outcome.error is None:
                item["output"] = outcome.text
            else:
                item["error"] = msgspec.Raw(outcome.error)
            item |= {key: msgspec.Raw(value) for key, value in outcome.fields}
        return item


class OpenApprovalRequest(OpenCall):
    """A call that needs consent: nothing is shown of it until it is whole (rule T6).

    A request has no status: half of one would look like a whole one.
    """

    kind = "mcp_approval_request"
    family = b""

    def __init__(
        self,
        events: EventWriter,
        item_id: str,
        index: int,
        *,
        shown: str,
        name: str,
        server: McpTool,
        asking: Asking,
    ) -> None:
        super().__init__(events, item_id, index)
        self._shown = shown
        self._name = name
        self._server = server
        self._asking = asking

    def opened(self) -> bytes:
        """Return nothing."""
        return b""

    def delta(self, content: ArgumentsDelta) -> bytes:
        """Keep it."""
        self._pieces.append(content.text)
        return b""

    def asked(self) -> tuple[bytes, StoredItem, AskedApproval]:
        """Return the events, the item, and what is kept to check the answer by. No model is told of it."""
        if not self.arguments.strip():
            self._pieces = ["{}"]
        self.id, consent = self._asking.ask(
            self.id, self._server, self._name, self.arguments, self._shown
        )
        item = encode(self.json("completed"))
        frames = self._events.item("added", self.index, item)
        frames += self._events.item("done", self.index, item)
        stored = StoredItem(id=self.id, type=self.kind, item=item, replay=None, call_id=self.id)
        return frames, stored, AskedApproval(self.id, consent.pack())

    def json(self, status: str) -> Item:
        """Return the request."""
        return {
            "id": self.id,
            "type": self.kind,
            "arguments": self.arguments,
            "name": self._name,
            "server_label": self._server.server_label,
        }


def listed(
    events: EventWriter, item_id: str, index: int, listing: Listing
) -> tuple[bytes, StoredItem]:
    """Return the events and the item of one provider's list; a failure is its `error` (rule T5)."""
    item: Item = {"id": item_id, "type": "mcp_list_tools", "server_label": listing.label}
    item["tools"] = listing.items()
    place = b',"item_id":"%b","output_index":%d' % (item_id.encode(), index)
    ending = b"completed" if listing.error is None else b"failed"
    frames = events.item("added", index, encode({**item, "tools": []}))
    frames += events.event(b"response.mcp_list_tools.in_progress", place)
    frames += events.event(b"response.mcp_list_tools." + ending, place)
    if listing.error is not None:
        item["error"] = listing.error
    encoded = encode(item)
    frames += events.item("done", index, encoded)
    key = listing.key if listing.error is None else None
    kind = "mcp_list_tools"
    return frames, StoredItem(id=item_id, type=kind, item=encoded, replay=None, call_id=key)
