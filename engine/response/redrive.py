"""From an event log back to the machine that wrote it: how a response outlives its worker (rule P4).

What a machine is made of is in what it sent: its ids come from the response's own, its numbers from
counting. So the logged frames are read back as the inputs that made them, and a fresh machine that is
given those makes the same bytes. It is checked that it does: a log of another release, or a damaged one, is
refused rather than continued wrongly. Pure.

    redrive = Redrive(ResponseMachine(shape, ids, store=True), queued=claim.background)
    for page in pages:
        redrive.feed(page)
    redriven = redrive.end()
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

import msgspec

from engine import sse
from engine.api.file_search import CALL as FILE_SEARCH_CALL
from engine.api.response_object import Usage
from engine.context.compacted import COMPACTION
from engine.errors import InvalidRequest
from engine.ports import EventBatch
from engine.response.agenda import Agenda, Listing
from engine.response.compaction import Compaction, Plan
from engine.response.effects import Send
from engine.response.inputs import (
    ArgumentsDelta,
    Begin,
    Cited,
    Content,
    ContextCompacted,
    Fits,
    Input,
    ItemEnded,
    ItemStarted,
    ModelAnswered,
    Queued,
    ReasoningDelta,
    RefusalDelta,
    Resumed,
    RoundEnded,
    SummaryDelta,
    TextDelta,
    ToolEnded,
    ToolsListed,
    TurnEnded,
    UpstreamEnded,
    UpstreamEvent,
    UpstreamStarted,
    WaitedLong,
)
from engine.response.log_events import (
    CALL_ENDED,
    CALLS,
    IMPLIED,
    ITEM_ADDED,
    KINDS,
    OPENING,
    OWNED_TYPES,
    PART_ADDED,
    LoggedEvent,
    LoggedItem,
    decode,
    listing_of,
    outcome_of,
    search_outcome,
    upstream_event,
    upstream_item,
)
from engine.response.machine import ResponseMachine
from engine.response.notes import Held, read_held, read_usage
from engine.response.phase import Phase
from engine.response.turn import TurnRequest

LEAP = 1_000_000
"""More events than can have been sent and not logged: how far the numbers of a stream leap whose worker
died while its client was reading. The client may have seen events that are in no log; none of their
numbers is used again."""


NO_LISTINGS: Mapping[str, Listing] = MappingProxyType({})


class NotRedrivable(Exception):
    """The log is not what this release's machine would have written."""


class Redriven(msgspec.Struct, frozen=True):
    """A machine in the state of the dead one: in QUEUED if it never began, else in STREAMING.

    `unlogged` are events that the machine has made beyond the log: where the log ends between events that
    are made together, they are its next ones.
    """

    machine: ResponseMachine
    unlogged: EventBatch | None


# What the dead worker asked the model for is asked no more.
_NO_TURN = TurnRequest(b"")
_NO_TIME = 0

_DELTAS: Mapping[str, Callable[[str], Content]] = {
    "response.refusal.delta": RefusalDelta,
    "response.function_call_arguments.delta": ArgumentsDelta,
    "response.mcp_call_arguments.delta": ArgumentsDelta,
    "response.reasoning_text.delta": ReasoningDelta,
    "response.reasoning_summary_text.delta": SummaryDelta,
}
_EMPTY: Mapping[str, Content] = {
    "output_text": TextDelta(""),
    "refusal": RefusalDelta(""),
    "reasoning_text": ReasoningDelta(""),
    "summary_text": SummaryDelta(""),
}
"""Type of a part -> the least input that opens it."""


class Redrive:
    """Feeds a fresh machine with what its log tells; holds no more of the log than what is unmatched.

    `known` are the lists that the thread has shown already, by label: those are in no log of a continuation.
    """

    def __init__(
        self,
        machine: ResponseMachine,
        *,
        queued: bool,
        turn: Plan = _NO_TURN,
        known: Mapping[str, Listing] = NO_LISTINGS,
    ) -> None:
        self._machine = machine
        self._queued = queued
        self._turn = turn
        plan = turn.goes_on([]) if isinstance(turn, Compaction) else turn
        self._agenda = plan if isinstance(plan, Agenda) else None
        self._known = known
        self._approved: set[str] = set()
        self._usage: Mapping[int, Usage] = {}
        self._held: Mapping[int, Held] = {}
        self._said: dict[str, Held] = {}
        """What is held of the end of calls, by their items."""
        self._listings: list[Listing] = []
        self._upstream: set[str] = set()
        self._growing: set[str] = set()
        """Items that have begun and not ended: those of the model server's tools, and all others."""
        self._logged = b""
        self._made: list[bytes] = []
        self._last: LoggedEvent | None = None

    def feed(self, frames: bytes) -> None:
        """Take the next whole frames of the log; raises NotRedrivable."""
        self._usage = read_usage(frames)
        try:
            self._held = read_held(frames)
        except msgspec.DecodeError as exc:
            raise NotRedrivable(f"The log holds a note that is none: {exc}.") from exc
        for event in sse.Decoder(len(frames)).feed(frames):
            try:
                last = self._last = decode(event.data)
            except msgspec.DecodeError as exc:
                raise NotRedrivable(f"The log holds what is no event: {exc}.") from exc
            if last.sequence_number >= self._machine.sequence + LEAP:
                # It was taken over before.
                self._machine.leap_to(last.sequence_number)
            if last.item_id in self._upstream:
                self._give(UpstreamEvent(last.item_id, last.type, upstream_event(event.data)))
            elif last.item_id not in self._approved:
                # A call that was consented to is begun as one, whatever of it is logged.
                self._take(last, event.data)
        self._logged += frames
        self._match()

    def end(self) -> Redriven:
        """Return the machine once it has made everything that is logged; raises NotRedrivable."""
        self._open()
        if self._listings:
            self._listed()
        if self._logged:
            self._complete(self._last)
        if self._logged:
            raise NotRedrivable(f"The log ends with what no machine makes: {self._logged[:200]!r}")
        if self._machine.phase is Phase.CALLING:
            self._give(ModelAnswered())
        return Redriven(self._machine, self._unlogged())

    def _take(self, event: LoggedEvent, data: bytes) -> None:
        if event.type in OPENING:
            self._lifecycle(event.type)
        elif event.type == "response.output_text.delta":
            self._content(TextDelta(event.delta, bytes(event.logprobs)))
        elif event.type == "response.output_text.annotation.added":
            self._cited(event)
        elif (delta := _DELTAS.get(event.type)) is not None:
            self._content(delta(event.delta))
        elif event.item is not None:
            take = self._item_added if event.type == ITEM_ADDED else self._item_done
            take(event.item, data, event.sequence_number)
        elif event.type == "response.mcp_call_arguments.done":
            self._content(ItemEnded("completed"))
        elif event.type == "response.file_search_call.searching":
            self._searching(event.sequence_number)
        elif event.type in CALL_ENDED:
            self._turn_over(event.sequence_number)
            self._said[event.item_id] = self._held.get(event.sequence_number, Held())
        elif event.type not in IMPLIED:
            raise NotRedrivable(f"An event '{event.type}' is in the log of an unfinished response.")

    def _cited(self, event: LoggedEvent) -> None:
        if event.annotation is None:
            raise NotRedrivable("A citation is in the log that cites nothing.")
        mark = self._held.get(event.sequence_number, Held()).mark
        self._content(Cited(mark, event.annotation.file_id, event.annotation.filename))

    def _searching(self, number: int) -> None:
        arguments = self._held.get(number, Held()).arguments
        if arguments:
            self._content(ArgumentsDelta(arguments))
        self._content(ItemEnded("completed"))

    def _turn_over(self, number: int) -> None:
        """Tell of the end of the model's turn: calls end behind it, and nothing else tells of that."""
        if self._machine.phase is Phase.STREAMING:
            self._give(TurnEnded(_NO_TIME, self._usage.get(number)))

    def _lifecycle(self, kind: str) -> None:
        self._open()
        if kind == "response.in_progress" and self._machine.phase is Phase.QUEUED:
            self._give(Begin(self._turn))

    def _open(self) -> None:
        """Make the first events, once: those of the queue, or those of a run."""
        if self._machine.phase is not Phase.NEW:
            return
        for received in (Queued(),) if self._queued else (Begin(self._turn), WaitedLong()):
            self._give(received)

    def _item_added(self, item: LoggedItem, data: bytes, number: int) -> None:
        if item.type != COMPACTION and self._is_upstream(item):
            self._listed()
            self._upstream.add(item.id)
            self._content(UpstreamStarted(item.id, item.type, upstream_item(data)))
            return
        if item.type == "mcp_list_tools":
            return
        if item.type == COMPACTION:
            self._compacted(item, number)
            return
        self._listed()
        self._growing.add(item.id)
        if item.type == "mcp_call" and item.approval_request_id is not None:
            self._approved.add(item.id)
        elif item.type in (*CALLS, "mcp_approval_request"):
            shown = self._machine.shown_name(item.label, item.tool)
            if shown is None:
                raise NotRedrivable("A tool was called that is in no list.")
            self._content(ItemStarted("function_call", shown))
        else:
            self._content(ItemStarted(KINDS[item.type], item.name or ""))
        if item.type == "mcp_approval_request":
            self._content(ArgumentsDelta(str(item.arguments)))
            self._content(ItemEnded("completed"))

    def _compacted(self, item: LoggedItem, number: int) -> None:
        """Tell the machine of the summary that the dead one was given."""
        if not isinstance(self._turn, Compaction):
            raise NotRedrivable("A context was compacted that nobody wants compacted.")
        try:
            compacted = self._turn.read(item.encrypted_content or "")
        except InvalidRequest as error:
            raise NotRedrivable(f"The summary cannot be read: {error}") from error
        self._give(ContextCompacted(compacted, self._usage.get(number)))

    def _listed(self) -> None:
        """Tell the machine of the tools, once: of the lists that are logged, and of those shown before."""
        if self._machine.phase is Phase.COMPACTING:
            self._give(Fits())
        if self._machine.phase is not Phase.LISTING or self._agenda is None:
            return
        logged = {one.label: one for one in self._listings}
        by_label = {**self._agenda.built_in, **self._known, **logged}
        self._listings = []
        if missing := [label for label in self._agenda.labels if label not in by_label]:
            raise NotRedrivable(f"The tools of {missing} are in no list.")
        self._give(ToolsListed(tuple(by_label[label] for label in self._agenda.labels)))

    def _is_upstream(self, item: LoggedItem) -> bool:
        """True for an item of a tool that the model server ran."""
        if item.type not in OWNED_TYPES:
            return item.type not in KINDS
        return self._agenda is None or item.label not in self._agenda.labels

    def _item_done(self, item: LoggedItem, data: bytes, number: int) -> None:
        if item.id in self._upstream:
            self._upstream.remove(item.id)
            self._give(UpstreamEnded(item.id, upstream_item(data)))
        elif item.status == "incomplete":
            self._cut(item)
        elif item.type == "mcp_list_tools":
            self._listings.append(listing_of(item))
            self._all_listed()
        elif item.type in (COMPACTION, "mcp_approval_request"):
            # It was made whole with its `added`.
            self._growing.discard(item.id)
        elif item.type == "mcp_call":
            self._growing.discard(item.id)
            self._give(ToolEnded(item.id, outcome_of(item)))
        elif item.type == FILE_SEARCH_CALL:
            self._growing.discard(item.id)
            # One that failed has no other event of its end.
            self._turn_over(number)
            held = self._said.pop(item.id, None) or self._held.get(number, Held())
            self._give(ToolEnded(item.id, search_outcome(item, held)))
        else:
            self._growing.discard(item.id)
            self._content(ItemEnded(item.status or "completed", item.encrypted_content))

    def _all_listed(self) -> None:
        """Go on where no list is missing any more."""
        agenda = self._agenda
        if agenda is not None and len(self._listings) == len(agenda.labels) - len(agenda.built_in):
            self._listed()

    def _cut(self, item: LoggedItem) -> None:
        """Take over as it was done before: that, or an end that came to no terminal event, cuts items.

        It cuts all that are open, of which the first tells.
        """
        if item.id in self._growing:
            self._give(Resumed(self._turn))
            self._growing.clear()
            self._upstream.clear()

    def _content(self, received: Content | ItemEnded) -> None:
        if self._machine.phase is Phase.RUNNING:
            self._give(RoundEnded(_NO_TIME))
        if self._machine.phase is Phase.CALLING:
            self._give(ModelAnswered())
        self._give(received)

    def _give(self, received: Input) -> None:
        try:
            effects = self._machine.receive(received)
        except Exception as exc:
            raise NotRedrivable(f"The log cannot be followed: {exc!r}.") from exc
        self._made.extend(effect.frames for effect in effects if isinstance(effect, Send))

    def _complete(self, last: LoggedEvent | None) -> None:
        """Make the rest of what is made in one step, where the log ends within it."""
        empty = None if last is None or last.part is None else _EMPTY.get(last.part.type)
        if last is not None and last.type in PART_ADDED and empty is not None:
            self._give(empty)
        elif last is not None and last.type in IMPLIED:
            # Whether it was cut nobody can say, but a call whose arguments are told to be done is whole.
            whole = last.type == "response.function_call_arguments.done"
            self._give(ItemEnded("completed" if whole else "incomplete"))
        self._match()

    def _unlogged(self) -> EventBatch | None:
        frames = b"".join(self._made)
        if not frames:
            return None
        # Each event is one frame with one number.
        following = self._machine.sequence
        return EventBatch(following - frames.count(b"\n\n"), following - 1, frames)

    def _match(self) -> None:
        """Drop what is both logged and made; raises NotRedrivable where they differ."""
        made = b"".join(self._made)
        common = min(len(made), len(self._logged))
        if made[:common] != self._logged[:common]:
            raise NotRedrivable(_difference(self._logged, made))
        self._logged = self._logged[common:]
        self._made = [made[common:]]


def _difference(logged: bytes, made: bytes) -> str:
    place = next(i for i, (a, b) in enumerate(zip(logged, made, strict=False)) if a != b)
    around = slice(max(0, place - 80), place + 80)
    return f"The log has {logged[around]!r} where this release writes {made[around]!r}."
