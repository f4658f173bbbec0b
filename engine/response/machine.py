"""The life of one response as a state machine: inputs in, effects out, no I/O, no clock, no randomness.

A row of TRANSITIONS is `(state, input type) -> (handler, states that it may lead to)`. An input without a
row is a bug of the caller and raises IllegalInput; nothing is ignored. ARCHITECTURE.md draws this table.

    NEW [-> QUEUED] -> CALLING -> STREAMING -> SAVING -> CLOSED
                          ^           `-- taken over from a worker that is gone: CALLING again
                          `-- failed with nothing sent: refused -> CLOSED
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
from engine.response.effects import CallModel, Close, Effect, Refuse, Save, Send
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
    Saved,
    SaveFailed,
    SummaryDelta,
    TextDelta,
    TurnEnded,
    WaitedLong,
)
from engine.response.output import Output


class Phase(Enum):
    """Where a response is in its life."""

    NEW = "new"
    QUEUED = "queued"
    CALLING = "calling"
    STREAMING = "streaming"
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
        self.phase = Phase.CALLING
        call = CallModel(received.turn)
        if self.opened:
            return [self._send(self._lifecycles("in_progress", "in_progress")), call]
        return [call]

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
        self.phase = Phase.CALLING
        frames = self._output.close("incomplete")
        self._output.forget()
        return [self._send(frames), CallModel(received.turn)]

    def _turn_ended(self, received: TurnEnded) -> list[Effect]:
        if received.usage is not None:
            self.usage = received.usage if self.usage is None else self.usage + received.usage
        cut = received.incomplete_reason is not None
        return self._finish(
            State(
                status="incomplete" if cut else "completed",
                completed_at=None if cut else received.at,
                incomplete_reason=received.incomplete_reason,
                usage=self.usage,
            )
        )

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
        frames += self._output.close("completed" if state.status == "completed" else "incomplete")
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
        """Return `created` and `in_progress` (rule R2), once."""
        if self.opened:
            return b""
        self.opened = True
        return self._lifecycles("in_progress", "created", "in_progress")

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
        Begin: _row(_M._begin, Phase.CALLING),
    },
    Phase.QUEUED: {
        Begin: _row(_M._begin, Phase.CALLING),
        Failed: _row(_M._failed, Phase.SAVING),
        Cancelled: _row(_M._cancelled, Phase.SAVING),
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
        TurnEnded: _row(_M._turn_ended, *_ENDS),
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
