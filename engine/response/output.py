"""The output of one response: content in, events and finished items out (rules R4-R7, R9).

One item grows at a time. It is closed when the next one starts or the turn ends, not when the backend says
so: only then is it known whether it was the last one, which a cut makes `incomplete`. Calls of tools that
the gateway runs stay open beyond that, several beside each other, until their outcome is known.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import msgspec

from engine.api.events import EventWriter
from engine.api.json import encode
from engine.api.upstream_items import id_prefix
from engine.context.compacted import COMPACTION, COVERS
from engine.ids import ItemIds
from engine.ports import AskedApproval, StoredItem, ToolOutcome
from engine.response.agenda import Listing, OwnedTools
from engine.response.compaction import Compacted
from engine.response.consent import ApprovedCall
from engine.response.file_search import OpenFileSearchCall
from engine.response.inputs import (
    ArgumentsDelta,
    Cited,
    Content,
    ItemStarted,
    Passed,
    ReasoningDelta,
    RefusalDelta,
    SummaryDelta,
    TextDelta,
    UpstreamEnded,
    UpstreamEvent,
    UpstreamStarted,
)
from engine.response.open_items import (
    OpenCall,
    OpenFunctionCall,
    OpenItem,
    OpenMessage,
    OpenReasoning,
    Seal,
)
from engine.response.owned_call import OpenOwnedCall
from engine.response.owned_items import OpenApprovalRequest, OpenMcpCall, listed
from engine.response.upstream_items import OpenUpstreamItem

# What an item without any text takes, roughly: endless empty items must reach the bound too (rule X5).
_ITEM_SIZE = 200
# What calls are shown as by their providers' kinds; those of no kind are calls of MCP servers.
_CALLS: Mapping[str, type[OpenOwnedCall]] = {OpenFileSearchCall.kind: OpenFileSearchCall}
_PASSED = (UpstreamStarted, UpstreamEvent, UpstreamEnded)


class Output:
    """Collects the output items of a response. `owned` are the tools whose calls are the gateway's."""

    def __init__(self, ids: ItemIds, events: EventWriter, seal: Seal | None = None) -> None:
        """`seal`: reasoning is shown sealed too."""
        self._seal = seal
        self.size = 0
        """Characters of model output, and of what tools answered, held so far."""
        self.owned = OwnedTools()
        self.asked: list[AskedApproval] = []
        """The requests for consent among the items."""
        self._places: list[StoredItem | None] = []
        self._ids = ids
        self._events = events
        self._open: OpenItem | None = None
        self._waiting: dict[str, OpenOwnedCall] = {}
        self._upstream: dict[str, OpenUpstreamItem] = {}
        self._kept = 0
        """Behind the last owned call that is finished: what stands before that is not made anew."""
        self._whole = True

    @property
    def items(self) -> list[StoredItem]:
        """The finished items, in the order in which they were begun."""
        return [item for item in self._places if item is not None]

    @property
    def waiting(self) -> list[OpenOwnedCall]:
        """The owned calls whose arguments are whole and whose outcome is not known."""
        return list(self._waiting.values())

    @property
    def called(self) -> bool:
        """True if there is a finished call, or a request for consent, for the client to answer."""
        calls = (item.type == "function_call" and item.replay is not None for item in self.items)
        return bool(self.asked) or any(calls)

    @property
    def cut(self) -> bool:
        """True if the last item, or an owned call, is not whole."""
        still = self._open is not None or self._waiting or self._upstream
        return bool(still) or not self._whole

    def receive(self, content: Content) -> bytes:
        """Take one piece of content and return the events that it makes."""
        item = self._open
        if type(content) is TextDelta:
            # What comes most often.
            assert isinstance(item, OpenMessage)
            self.size += len(content.text) + len(content.logprobs)
            return item.delta(content)
        if isinstance(content, ItemStarted):
            return self.close("completed") + self._start(content)
        if isinstance(content, _PASSED):
            return self._pass(content)
        self.size += len(content.text)
        match content:
            case TextDelta() | RefusalDelta():
                assert isinstance(item, OpenMessage)
                return item.delta(content)
            case Cited():
                assert isinstance(item, OpenMessage)
                self.size += _ITEM_SIZE
                return item.cite(content)
            case ReasoningDelta() | SummaryDelta():
                assert isinstance(item, OpenReasoning)
                return item.delta(content)
            case ArgumentsDelta():
                assert isinstance(item, OpenCall)
                return item.delta(content)

    def close(self, status: str, sealed: str | None = None) -> bytes:
        """Finish the item that grows, if there is one, and return its closing events.

        A whole owned call waits for its outcome. `sealed`: as in `ItemEnded`.
        """
        item = self._open
        if item is None:
            return b""
        self._open = None
        self._whole = status == "completed"
        if isinstance(item, OpenReasoning):
            item.sealed = sealed
        if isinstance(item, OpenOwnedCall):
            if self._whole:
                self._waiting[item.id] = item
                return item.whole()
            return self._put(item, item.given_up())
        if isinstance(item, OpenApprovalRequest):
            return self._ask(item)
        frames, finished = item.closed(status)
        call_id = finished.get("call_id")
        stored = StoredItem(
            id=item.id,
            type=item.kind,
            item=encode(finished),
            replay=item.replay(finished),
            call_id=None if call_id is None else str(call_id),
        )
        return self._put(item, (frames, stored))

    def close_turn(self) -> bytes:
        """Finish what a turn that ended well left open, but for owned calls that wait."""
        frames = self.close("completed")
        for item in self._upstream.values():
            frames += self._put(item, item.left_open())
        self._upstream.clear()
        return frames

    def close_all(self, status: str) -> bytes:
        """Finish everything; owned calls whose outcome is not known are given up."""
        frames = self.close(status)
        for call in self.waiting:
            self._whole = False
            frames += self._put(call, call.given_up())
        self._waiting.clear()
        for item in self._upstream.values():
            self._whole = False
            frames += self._put(item, item.given_up())
        self._upstream.clear()
        return frames

    def end_call(self, item_id: str, outcome: ToolOutcome) -> bytes:
        """Finish an owned call and return its events."""
        call = self._waiting.pop(item_id)
        frames, stored = call.ended(outcome)
        self.size += len(stored.item) + len(stored.replay or b"")
        self._kept = max(self._kept, call.index + 1)
        return self._put(call, (frames, stored))

    def begin_approved(self, call: ApprovedCall) -> bytes:
        """Begin a call that was consented to, whole, and return its events; it waits for its outcome."""
        shown = self.owned.names.get(call.key, call.shown)
        item = OpenMcpCall(
            self._events,
            self._ids.mint("mcp"),
            len(self._places),
            shown=shown,
            key=call.key,
            terms=self.owned.terms,
            request_id=call.request_id,
        )
        self._places.append(None)
        self.size += _ITEM_SIZE + len(call.arguments)
        self._waiting[item.id] = item
        return item.opened() + item.delta(ArgumentsDelta(call.arguments)) + item.whole()

    def compacted(self, compacted: Compacted) -> bytes:
        """Add the summary of what precedes this response and return its events; it is never made anew."""
        item_id, index = self._ids.mint("cmp"), len(self._places)
        shown = {"id": item_id, "type": COMPACTION, "encrypted_content": compacted.sealed}
        item = encode(shown)
        stored = StoredItem(item_id, COMPACTION, item, compacted.replay, call_id=COVERS)
        self._places.append(stored)
        self._kept = index + 1
        self.size += len(item) + len(compacted.replay)
        return self._events.item("added", index, item) + self._events.item("done", index, item)

    def list_tools(self, listings: Iterable[Listing]) -> bytes:
        """Add an item for each provider and return their events."""
        frames = b""
        for listing in listings:
            made, stored = listed(self._events, self._ids.mint("mcpl"), len(self._places), listing)
            self._places.append(stored)
            self.size += len(stored.item)
            frames += made
        return frames

    def forget(self) -> None:
        """Send none of the finished items to a model again; they stay shown.

        Owned calls that are finished are kept, with all that led to the last of them.
        """
        for place, item in enumerate(self._places[self._kept :], self._kept):
            if item is not None:
                self._places[place] = msgspec.structs.replace(item, replay=None)

    def _ask(self, item: OpenApprovalRequest) -> bytes:
        if not self._whole:
            # Nothing was shown of it, and nothing is behind it.
            self._places.pop()
            return b""
        frames, self._places[item.index], asked = item.asked()
        self.asked.append(asked)
        return frames

    def _pass(self, content: Passed) -> bytes:
        """Let through what the model server tells of a tool of its own."""
        self.size += len(content.tail)
        if isinstance(content, UpstreamStarted):
            return self.close("completed") + self._start_upstream(content)
        item = self._upstream.get(content.key)
        assert item is not None
        if isinstance(content, UpstreamEvent):
            return item.event(content.kind, content.tail)
        del self._upstream[content.key]
        return self._put(item, item.ended(content.tail))

    def _start_upstream(self, start: UpstreamStarted) -> bytes:
        self.size += _ITEM_SIZE
        item_id, call_id = self._ids.mint(id_prefix(start.kind)), self._ids.mint("call")
        item = self._upstream[start.key] = OpenUpstreamItem(
            self._events,
            item_id,
            len(self._places),
            start.kind,
            call_id=call_id,
            tail=start.tail,
        )
        self._places.append(None)
        return item.opened()

    def _put(self, item: OpenItem | OpenUpstreamItem, closed: tuple[bytes, StoredItem]) -> bytes:
        frames, self._places[item.index] = closed
        return frames

    def _start(self, start: ItemStarted) -> bytes:
        self.size += _ITEM_SIZE + len(start.name)
        item = self._open = self._opened(start, len(self._places))
        self._places.append(None)
        return item.opened()

    def _opened(self, start: ItemStarted, index: int) -> OpenItem:
        mint, events = self._ids.mint, self._events
        if start.kind == "reasoning":
            return OpenReasoning(events, mint("rs"), index, self._seal)
        if start.kind == "message":
            return OpenMessage(events, mint("msg"), index)
        key = self.owned.keys.get(start.name)
        if key is None:
            # The client's, or nobody's: the client is told of it (rule T7).
            item_id, call_id = mint("fc"), mint("call")
            return OpenFunctionCall(events, item_id, index, call_id=call_id, name=start.name)
        server = self.owned.guarded.get(key)
        if server is None:
            call = _CALLS.get(self.owned.kinds.get(key[0], ""), OpenMcpCall)
            terms = self.owned.terms
            return call(events, mint(call.prefix), index, shown=start.name, key=key, terms=terms)
        return OpenApprovalRequest(
            events,
            mint("mcpr"),
            index,
            shown=start.name,
            name=key[1],
            server=server,
            asking=self.owned.asking,
        )
