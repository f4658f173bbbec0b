"""Items of tools that the model server runs itself: passed through under our ids (rules R3-R5)."""

from __future__ import annotations

import msgspec

from engine.api.events import EventWriter
from engine.api.upstream_items import item_tail
from engine.context.upstream_items import replay_pair
from engine.ports import StoredItem


class OpenUpstreamItem:
    """Open until the server ends it, beside the items after it."""

    def __init__(
        self, events: EventWriter, item_id: str, index: int, kind: str, *, call_id: str, tail: bytes
    ) -> None:
        self.id = item_id
        self.index = index
        self.kind = kind
        self._events = events
        self._call_id = call_id
        self._tail = tail
        self._place = b',"item_id":"%b","output_index":%d' % (item_id.encode(), index)

    def opened(self) -> bytes:
        """Return `output_item.added`."""
        return self._events.item("added", self.index, self._whole(self._tail))

    def event(self, kind: str, tail: bytes) -> bytes:
        """Return an event of the server's."""
        return self._events.event(kind.encode(), self._place + tail)

    def ended(self, tail: bytes) -> tuple[bytes, StoredItem]:
        """Return `output_item.done` and the item, with what the model is told of it later."""
        item = self._whole(tail)
        done = self._events.item("done", self.index, item)
        sent = replay_pair(msgspec.json.decode(item), self._call_id)
        return done, StoredItem(id=self.id, type=self.kind, item=item, replay=sent)

    def left_open(self) -> tuple[bytes, StoredItem]:
        """Return the same where the server's turn ended without the item's end: as it was last seen."""
        return self.ended(item_tail(msgspec.json.decode(self._whole(self._tail)), ended=True))

    def given_up(self) -> tuple[bytes, StoredItem]:
        """Return `output_item.done` and the item as it was last seen; no model is told of it."""
        item = msgspec.json.decode(self._whole(self._tail))
        if "status" in item:
            item["status"] = "incomplete"
        whole = self._whole(item_tail(item, ended=True))
        done = self._events.item("done", self.index, whole)
        return done, StoredItem(id=self.id, type=self.kind, item=whole, replay=None)

    def _whole(self, tail: bytes) -> bytes:
        return b'{"id":"%b"%b' % (self.id.encode(), tail)
