"""Items of the tools that the gateway runs: `mcp_list_tools` and `mcp_call` (rules T1, T5)."""

from __future__ import annotations

import msgspec

from engine.api.events import EventWriter
from engine.api.json import encode
from engine.context.replay import replay
from engine.context.tool_names import ToolKey
from engine.ports import StoredItem, ToolDefinition, ToolOutcome
from engine.response.agenda import Listing
from engine.response.open_items import Item, OpenCall


class OpenMcpCall(OpenCall):
    """A call of an MCP server's tool: open until its outcome is known, beside the items after it.

    `shown` is the function's name that the model called, `call_id` what pairs call and output for it; the
    client sees neither.
    """

    kind = "mcp_call"
    family = b"response.mcp_call_arguments"

    def __init__(
        self,
        events: EventWriter,
        item_id: str,
        index: int,
        *,
        call_id: str,
        shown: str,
        key: ToolKey,
    ) -> None:
        super().__init__(events, item_id, index)
        self.key = key
        self._call_id = call_id
        self._shown = shown
        self._outcome: ToolOutcome | None = None

    def opened(self) -> bytes:
        """Return `output_item.added` and `.in_progress`."""
        return super().opened() + self._events.event(b"response.mcp_call.in_progress", self._place)

    def ended(self, outcome: ToolOutcome) -> tuple[bytes, StoredItem]:
        """Return the closing events, and the item with what the model is told of the call (rule M4)."""
        self._outcome = outcome
        status = "failed" if outcome.failed else "completed"
        frames = self._events.event(b"response.mcp_call." + status.encode(), self._place)
        done, item = self.closed(status)
        return frames + done, self._stored(item, self._pair(outcome))

    def given_up(self) -> tuple[bytes, StoredItem]:
        """Return the closing events of a call whose outcome nobody will know; no model is told of it."""
        done, item = self.closed("incomplete")
        return done, self._stored(item, None)

    def json(self, status: str) -> Item:
        """Return the call; `output` and `error` are null until they are known."""
        label, name = self.key
        outcome = self._outcome
        item: Item = {
            "id": self.id,
            "type": self.kind,
            "status": status,
            "approval_request_id": None,
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

    def _stored(self, item: Item, sent: bytes | None) -> StoredItem:
        return StoredItem(id=self.id, type=self.kind, item=encode(item), replay=sent)

    def _pair(self, outcome: ToolOutcome) -> bytes:
        output: object = outcome.text
        if outcome.images:
            parts = [{"type": "input_text", "text": outcome.text}] if outcome.text else []
            output = parts + [{"type": "input_image", "image_url": url} for url in outcome.images]
        call = {"type": "function_call", "call_id": self._call_id, "name": self._shown}
        answer = {"type": "function_call_output", "call_id": self._call_id, "output": output}
        sent = (replay({**call, "arguments": self.arguments}), replay(answer))
        return b",".join(part for part in sent if part is not None)


def listed(
    events: EventWriter, item_id: str, index: int, listing: Listing
) -> tuple[bytes, StoredItem]:
    """Return the events and the item of one provider's list; a failure is its `error` (rule T5)."""
    item: Item = {"id": item_id, "type": "mcp_list_tools", "server_label": listing.label}
    item["tools"] = [shown_tool(tool) for tool in listing.tools]
    place = b',"item_id":"%b","output_index":%d' % (item_id.encode(), index)
    ending = b"completed" if listing.error is None else b"failed"
    frames = events.item("added", index, encode({**item, "tools": []}))
    frames += events.event(b"response.mcp_list_tools.in_progress", place)
    frames += events.event(b"response.mcp_list_tools." + ending, place)
    if listing.error is not None:
        item["error"] = listing.error
    encoded = encode(item)
    frames += events.item("done", index, encoded)
    return frames, StoredItem(id=item_id, type="mcp_list_tools", item=encoded, replay=None)


def shown_tool(tool: ToolDefinition) -> Item:
    """Return a tool as a list of a server's tools shows it."""
    return {
        "name": tool.name,
        "description": tool.description,
        "input_schema": msgspec.Raw(tool.parameters),
        "annotations": None if tool.annotations is None else msgspec.Raw(tool.annotations),
    }
