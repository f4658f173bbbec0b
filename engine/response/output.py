"""The output of one response: content in, events and finished items out (rules R4-R7, R9).

One item is open at a time. It is closed when the next one starts or the response ends, not when the
backend says so: only then is it known whether it was the last one, which a cut makes `incomplete`.
"""

from __future__ import annotations

import msgspec

from engine.api.events import EventWriter
from engine.api.json import encode
from engine.context.replay import replay
from engine.ids import ItemIds
from engine.ports import StoredItem
from engine.response.inputs import (
    ArgumentsDelta,
    Content,
    ItemStarted,
    ReasoningDelta,
    RefusalDelta,
    SummaryDelta,
    TextDelta,
)
from engine.response.open_items import OpenFunctionCall, OpenItem, OpenMessage, OpenReasoning

# What an item without any text takes, roughly: endless empty items must reach the bound too (rule X5).
_ITEM_SIZE = 200


class Output:
    """Collects the output items of a response; `items` are the finished ones."""

    def __init__(self, ids: ItemIds, events: EventWriter) -> None:
        self.items: list[StoredItem] = []
        self.size = 0
        """Characters of model output held so far."""
        self._ids = ids
        self._events = events
        self._open: OpenItem | None = None
        self._whole = True

    @property
    def called(self) -> bool:
        """True if there is a finished call for the client to answer."""
        return any(item.call_id is not None and item.replay is not None for item in self.items)

    @property
    def cut(self) -> bool:
        """True if the last item is not whole."""
        return self._open is not None or not self._whole

    def receive(self, content: Content) -> bytes:
        """Take one piece of content and return the events that it makes."""
        if type(content) is ItemStarted:
            return self.close("completed") + self._start(content)
        assert not isinstance(content, ItemStarted)
        self.size += len(content.text)
        if type(content) is TextDelta:
            self.size += len(content.logprobs)
        item = self._open
        match content:
            case TextDelta() | RefusalDelta():
                assert isinstance(item, OpenMessage)
                return item.delta(content)
            case ReasoningDelta() | SummaryDelta():
                assert isinstance(item, OpenReasoning)
                return item.delta(content)
            case ArgumentsDelta():
                assert isinstance(item, OpenFunctionCall)
                return item.delta(content)

    def close(self, status: str) -> bytes:
        """Finish the open item, if there is one, and return its closing events."""
        item = self._open
        if item is None:
            return b""
        self._open = None
        self._whole = status == "completed"
        frames, finished = item.closed(status)
        call_id = finished.get("call_id")
        stored = StoredItem(
            id=item.id,
            type=item.kind,
            item=encode(finished),
            replay=replay(finished),
            call_id=None if call_id is None else str(call_id),
        )
        self.items.append(stored)
        return frames

    def forget(self) -> None:
        """Send none of the finished items to a model again; they stay shown."""
        self.items = [msgspec.structs.replace(item, replay=None) for item in self.items]

    def _start(self, start: ItemStarted) -> bytes:
        index = len(self.items)
        self.size += _ITEM_SIZE + len(start.name)
        item: OpenItem
        if start.kind == "function_call":
            item_id, call_id = self._ids.mint("fc"), self._ids.mint("call")
            item = OpenFunctionCall(self._events, item_id, index, call_id=call_id, name=start.name)
        elif start.kind == "reasoning":
            item = OpenReasoning(self._events, self._ids.mint("rs"), index)
        else:
            item = OpenMessage(self._events, self._ids.mint("msg"), index)
        self._open = item
        return item.opened()
