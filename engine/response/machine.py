"""The life of one response as a state machine: inputs in, effects out, no I/O, no clock, no randomness.

A row of TRANSITIONS is `(state, input type) -> (handler, states that it may lead to)`. An input without a
row is a bug of the caller and raises IllegalInput; nothing is ignored. ARCHITECTURE.md draws this table.

    NEW [-> QUEUED] [-> LISTING] -> CALLING -> STREAMING -> SAVING -> CLOSED
                                    ^   ^          |`-- taken over from a worker that is gone: CALLING again
                                    |   |          `-- owned tools are called: RUNNING, then CALLING again
                                    `---`-- failed with nothing sent: refused -> CLOSED
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from enum import Enum

import msgspec

from engine import sse
from engine.api.error import response_error, stream_error
from engine.api.events import EventWriter
from engine.api.response_object import ResponseObject, State, Usage, join
from engine.errors import EngineError
from engine.ids import ItemIds
from engine.ports import EventBatch
from engine.response.agenda import Agenda, Listing
from engine.response.effects import (
    CallModel,
    Close,
    Effect,
    ListTools,
    Refuse,
    RunTools,
    Save,
    Send,
    ToolCall,
)
from engine.response.inputs import (
    ArgumentsDelta,
    Begin,
    Cancelled,
    Content,
    CutShort,
    Failed,
    Input,
    ItemEnded,
    ItemStarted,
    ModelAnswered,
    Queued,
    ReasoningDelta,
    RefusalDelta,
    Resumed,
    RoundEnded,
    Saved,
    SaveFailed,
    SummaryDelta,
    TextDelta,
    ToolEnded,
    ToolsListed,
    TurnEnded,
    WaitedLong,
)
from engine.response.output import Output
from engine.response.owned_items import OpenMcpCall
from engine.response.turn import TurnRequest


class Phase(Enum):
    """Where a response is in its life."""

    NEW = "new"
    QUEUED = "queued"
    LISTING = "listing"
    CALLING = "calling"
    STREAMING = "streaming"
    RUNNING = "running"
    SAVING = "saving"
    CLOSED = "closed"


class IllegalInput(Exception):
    """An input that has no row in the table for the machine's phase."""


class ResponseMachine:
    """One response. `store` False skips SAVING: there is nothing to be held for."""

    def __init__(self, shape: ResponseObject, ids: ItemIds, *, store: bool) -> None:
        self.phase = Phase.NEW
        self._rows = TRANSITIONS[Phase.NEW]
        self.opened = False
        """True once an event was sent: from here on errors are events, not statuses (rule R16)."""
        self._shape = shape
        self._store = store
        self._events = EventWriter()
        self._output = Output(ids, self._events)
        self.usage: Usage | None = None
        """The sum over the turns that ended so far."""
        self._end: _End | None = None
        self._agenda: Agenda | None = None
        self._listed = False
        self._unshown: tuple[Listing, ...] = ()
        """Lists of tools that stand behind the first events, which are not sent yet."""
        self._turns = 0
        self._round: tuple[ToolCall, ...] = ()
        self._calls = 0

    def __repr__(self) -> str:
        return (
            f"<ResponseMachine {self.phase.value} opened={self.opened}"
            f" events={self._events.sequence} items={len(self._output.items)}>"
        )

    @property
    def sequence(self) -> int:
        """The number of the next event."""
        return self._events.sequence

    @property
    def held(self) -> int:
        """Characters of model output held (rule X5: the loop bounds it)."""
        return self._output.size

    @property
    def ran_tools(self) -> bool:
        """True once a tool was run: nobody should ask for the same again (rule R13)."""
        return self._calls > 0

    def shown_name(self, label: str, name: str) -> str | None:
        """Return the name under which the model is shown an owned tool; None for one that is not listed."""
        return self._output.owned.names.get((label, name))

    @property
    def called(self) -> bool:
        """True if the output has a finished call for the client to answer."""
        return self._output.called

    @property
    def cut(self) -> bool:
        """True if the output's last item is not whole."""
        return self._output.cut

    def leap_to(self, number: int) -> None:
        """Give the next event this number."""
        self._events.sequence = number

    def skip_to(self, number: int) -> None:
        """Be in the middle of a stream, at that number, with nothing of what was made before.

        All that is left to do is to end: for a log that cannot be read back (`engine.response.redrive`).
        """
        self.opened = True
        self._events.sequence = number
        self.phase = Phase.STREAMING
        self._rows = TRANSITIONS[self.phase]

    def receive(self, received: Input) -> list[Effect]:
        """Take what happened and return what is to be done, in order; raises IllegalInput."""
        row = self._rows.get(type(received))
        if row is None:
            raise IllegalInput(f"{type(received).__name__} in {self!r}")
        step, allowed = row
        before = self.phase
        effects = step(self, received)
        if self.phase is not before:
            assert self.phase in allowed, f"{before} -> {self.phase} by {received!r}"
            self._rows = TRANSITIONS[self.phase]
        return effects

    def _queued(self, _received: Queued) -> list[Effect]:
        self.phase = Phase.QUEUED
        self.opened = True
        return [self._send(self._lifecycles("queued", "created", "queued"))]

    def _begin(self, received: Begin) -> list[Effect]:
        asked = self._ask(received.turn)
        if self.opened:
            return [self._send(self._lifecycles("in_progress", "in_progress")), asked]
        return [asked]

    def _ask(self, turn: TurnRequest | Agenda) -> Effect:
        """Ask for a turn, or first for what is needed to make it."""
        if isinstance(turn, TurnRequest):
            self.phase = Phase.CALLING
            return CallModel(turn)
        self._agenda = turn
        if self._listed:
            return self._next_turn(turn)
        self.phase = Phase.LISTING
        return ListTools()

    def _tools_listed(self, received: ToolsListed) -> list[Effect]:
        assert self._agenda is not None
        self._listed = True
        self._output.owned = self._agenda.tools(received.listings)
        self._unshown = received.listings
        call = self._next_turn(self._agenda)
        return [self._send(self._open()), call] if self.opened else [call]

    def _next_turn(self, agenda: Agenda) -> CallModel:
        """Ask for a turn behind all that was made: what tools answered is input now (rule M9)."""
        self.phase = Phase.CALLING
        made = (item.replay for item in self._output.items if item.replay is not None)
        first, self._turns = self._turns == 0, self._turns + 1
        return CallModel(agenda.turn(self._output.owned, made, first=first))

    def _waited(self, _received: WaitedLong) -> list[Effect]:
        return [self._send(self._open())]

    def _answered(self, _received: ModelAnswered) -> list[Effect]:
        self.phase = Phase.STREAMING
        frames = self._open()
        return [self._send(frames)] if frames else []

    def _content(self, received: Content) -> list[Effect]:
        frames = self._output.receive(received)
        return [Send(frames, self._events.sequence - 1)]

    def _item_ended(self, received: ItemEnded) -> list[Effect]:
        return [self._send(self._output.close(received.status))]

    def _resumed(self, received: Resumed) -> list[Effect]:
        frames = self._output.close_all("incomplete")
        self._output.forget()
        return [self._send(frames), self._ask(received.turn)]

    def _turn_ended(self, received: TurnEnded) -> list[Effect]:
        if received.usage is not None:
            self.usage = received.usage if self.usage is None else self.usage + received.usage
        cut = received.incomplete_reason is not None
        frames = b"" if cut else self._output.close("completed")
        if not cut and (waiting := self._output.waiting):
            self.phase = Phase.RUNNING
            self._round = tuple(map(self._call, waiting))
            return [self._send(frames), RunTools(self._round)]
        effects: list[Effect] = [self._send(frames)] if frames else []
        return effects + self._finish_turn(received.at, received.incomplete_reason)

    def _finish_turn(self, at: int, cut: str | None) -> list[Effect]:
        return self._finish(
            State(
                status="completed" if cut is None else "incomplete",
                completed_at=at if cut is None else None,
                incomplete_reason=cut,
                usage=self.usage,
            )
        )

    def _call(self, waiting: OpenMcpCall) -> ToolCall:
        """Return a call to be run, counted (rule T4)."""
        assert self._agenda is not None
        most = self._agenda.request.max_tool_calls
        refused = most is not None and self._calls >= most
        self._calls += not refused
        label, name = waiting.key
        return ToolCall(waiting.id, label, name, waiting.arguments.encode(), refused)

    def _tool_ended(self, received: ToolEnded) -> list[Effect]:
        return [self._send(self._output.end_call(received.item_id, received.outcome))]

    def _round_ended(self, received: RoundEnded) -> list[Effect]:
        """Go on with what the tools answered, unless the client has to answer first or a cap is reached."""
        assert self._agenda is not None
        if self._output.called:
            cut = "worker_lost" if self._output.cut else None
            return self._finish_turn(received.at, cut)
        if all(call.refused for call in self._round):
            return self._finish_turn(received.at, "max_tool_calls")
        if self._turns >= self._agenda.most_turns:
            return self._finish_turn(received.at, "max_turns")
        return [self._next_turn(self._agenda)]

    def _cut_short(self, received: CutShort) -> list[Effect]:
        return self._finish(
            State(status="incomplete", incomplete_reason=received.reason, usage=self.usage)
        )

    def _cancelled(self, _received: Cancelled) -> list[Effect]:
        return self._finish(State(status="cancelled", usage=self.usage))

    def _failed(self, received: Failed) -> list[Effect]:
        return self._finish(self._failure(received.error), received.error)

    def _refused(self, received: Failed) -> list[Effect]:
        if self.opened:
            return self._failed(received)
        self.phase = Phase.CLOSED
        return [Refuse(received.error)]

    def _finish(self, state: State, error: EngineError | None = None) -> list[Effect]:
        """Close what is open; the terminal events are made, and held until they are saved (rule P1)."""
        frames = self._open()
        frames += self._output.close_all(
            "completed" if state.status == "completed" else "incomplete"
        )
        effects: list[Effect] = [self._send(frames)] if frames else []
        end = self._end = self._make_end(state, error)
        if not self._store:
            return [*effects, *self._close(end)]
        self.phase = Phase.SAVING
        output = list(self._output.items)
        return [*effects, Save(state.status, end.head, output, end.events)]

    def _saved(self, _received: Saved) -> list[Effect]:
        assert self._end is not None
        return self._close(self._end)

    def _save_failed(self, received: SaveFailed) -> list[Effect]:
        """Say that it failed, by events that take the numbers of those that were never released."""
        assert self._end is not None
        self._events.sequence = self._end.events.first
        return self._close(self._make_end(self._failure(received.error), received.error))

    def _close(self, end: _End) -> list[Effect]:
        self.phase = Phase.CLOSED
        released = Send(end.events.frames + sse.DONE, end.events.last)
        return [released, Close(end.status, end.body, end.error)]

    def _make_end(self, state: State, error: EngineError | None) -> _End:
        first, head = self._events.sequence, self._shape.head(state)
        frames = b""
        if error is not None:
            frames = self._events.event(b"error", b"," + stream_error(error))
        # The wire knows three terminal events (rule R1); docs/adr/0008.
        kind = "incomplete" if state.status == "cancelled" else state.status
        body = join(head, (item.item for item in self._output.items))
        frames += self._events.lifecycle(kind, body)
        events = EventBatch(first, self._events.sequence - 1, frames)
        return _End(state.status, head, body, events, error)

    def _failure(self, error: EngineError) -> State:
        return State(status="failed", error=response_error(error), usage=self.usage)

    def _send(self, frames: bytes) -> Send:
        return Send(frames, self._events.sequence - 1)

    def _open(self) -> bytes:
        """Return `created` and `in_progress` (rule R2), once, and the lists that were not shown yet."""
        frames = b"" if self.opened else self._lifecycles("in_progress", "created", "in_progress")
        self.opened = True
        unshown, self._unshown = self._unshown, ()
        return frames + self._output.list_tools(unshown)

    def _lifecycles(self, status: str, *kinds: str) -> bytes:
        """Return events that carry the object as it is before there is any output."""
        body = join(self._shape.head(State(status=status)), ())
        return b"".join(self._events.lifecycle(kind, body) for kind in kinds)


class _End(msgspec.Struct, frozen=True):
    """How a response ends: its terminal state, whole and as a head, and the events that tell of it."""

    status: str
    head: bytes
    body: bytes
    events: EventBatch
    error: EngineError | None


Row = tuple[Callable[..., list[Effect]], frozenset[Phase]]


def _row(step: Callable[..., list[Effect]], *to: Phase) -> Row:
    return step, frozenset(to)


_M = ResponseMachine
_ENDS = (Phase.SAVING, Phase.CLOSED)

TRANSITIONS: Mapping[Phase, Mapping[type, Row]] = {
    Phase.NEW: {
        Queued: _row(_M._queued, Phase.QUEUED),
        Begin: _row(_M._begin, Phase.LISTING, Phase.CALLING),
    },
    Phase.QUEUED: {
        Begin: _row(_M._begin, Phase.LISTING, Phase.CALLING),
        Failed: _row(_M._failed, Phase.SAVING),
        Cancelled: _row(_M._cancelled, Phase.SAVING),
    },
    Phase.LISTING: {
        WaitedLong: _row(_M._waited, Phase.LISTING),
        ToolsListed: _row(_M._tools_listed, Phase.CALLING),
        Resumed: _row(_M._resumed, Phase.LISTING),
        Failed: _row(_M._refused, *_ENDS),
        CutShort: _row(_M._cut_short, *_ENDS),
        Cancelled: _row(_M._cancelled, *_ENDS),
    },
    Phase.CALLING: {
        WaitedLong: _row(_M._waited, Phase.CALLING),
        ModelAnswered: _row(_M._answered, Phase.STREAMING),
        Failed: _row(_M._refused, *_ENDS),
        CutShort: _row(_M._cut_short, *_ENDS),
        Cancelled: _row(_M._cancelled, *_ENDS),
    },
    Phase.STREAMING: {
        ItemStarted: _row(_M._content, Phase.STREAMING),
        TextDelta: _row(_M._content, Phase.STREAMING),
        RefusalDelta: _row(_M._content, Phase.STREAMING),
        ArgumentsDelta: _row(_M._content, Phase.STREAMING),
        ReasoningDelta: _row(_M._content, Phase.STREAMING),
        SummaryDelta: _row(_M._content, Phase.STREAMING),
        ItemEnded: _row(_M._item_ended, Phase.STREAMING),
        Resumed: _row(_M._resumed, Phase.CALLING),
        TurnEnded: _row(_M._turn_ended, Phase.RUNNING, *_ENDS),
        Failed: _row(_M._failed, *_ENDS),
        CutShort: _row(_M._cut_short, *_ENDS),
        Cancelled: _row(_M._cancelled, *_ENDS),
    },
    Phase.RUNNING: {
        ToolEnded: _row(_M._tool_ended, Phase.RUNNING),
        RoundEnded: _row(_M._round_ended, Phase.CALLING, *_ENDS),
        Resumed: _row(_M._resumed, Phase.CALLING),
        Failed: _row(_M._failed, *_ENDS),
        CutShort: _row(_M._cut_short, *_ENDS),
        Cancelled: _row(_M._cancelled, *_ENDS),
    },
    Phase.SAVING: {
        Saved: _row(_M._saved, Phase.CLOSED),
        SaveFailed: _row(_M._save_failed, Phase.CLOSED),
    },
    Phase.CLOSED: {},
}
