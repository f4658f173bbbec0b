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

from engine import sse
from engine.api.error import response_error, stream_error
from engine.api.events import EventWriter
from engine.api.response_object import ResponseObject, State, Usage, join
from engine.errors import EngineError
from engine.ids import ItemIds
from engine.response.effects import CallModel, Close, Effect, Refuse, Save, Send
from engine.response.inputs import (
    ArgumentsDelta,
    Begin,
    Content,
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
        self._usage: Usage | None = None
        self._ending = State(status="in_progress")
        self._error: EngineError | None = None

    def __repr__(self) -> str:
        return (
            f"<ResponseMachine {self.phase.value} opened={self.opened}"
            f" events={self._events.sequence} items={len(self._output.items)}>"
        )

    @property
    def held(self) -> int:
        """Characters of model output held (rule X5: the loop bounds it)."""
        return self._output.size

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
        return [Send(self._lifecycles("queued", "created", "queued"))]

    def _begin(self, received: Begin) -> list[Effect]:
        self.phase = Phase.CALLING
        call = CallModel(received.body)
        if self.opened:
            return [Send(self._lifecycles("in_progress", "in_progress")), call]
        return [call]

    def _waited(self, _received: WaitedLong) -> list[Effect]:
        return [Send(self._open())]

    def _answered(self, _received: ModelAnswered) -> list[Effect]:
        self.phase = Phase.STREAMING
        frames = self._open()
        return [Send(frames)] if frames else []

    def _content(self, received: Content) -> list[Effect]:
        return [Send(self._output.receive(received))]

    def _item_ended(self, received: ItemEnded) -> list[Effect]:
        return [Send(self._output.close(received.status))]

    def _resumed(self, received: Resumed) -> list[Effect]:
        self.phase = Phase.CALLING
        frames = self._output.close("incomplete")
        self._output.forget()
        return [Send(frames), CallModel(received.body)]

    def _turn_ended(self, received: TurnEnded) -> list[Effect]:
        if received.usage is not None:
            self._usage = received.usage if self._usage is None else self._usage + received.usage
        cut = received.incomplete_reason is not None
        return self._end(
            State(
                status="incomplete" if cut else "completed",
                completed_at=None if cut else received.at,
                incomplete_reason=received.incomplete_reason,
                usage=self._usage,
            )
        )

    def _failed(self, received: Failed) -> list[Effect]:
        self._error = received.error
        return self._end(
            State(status="failed", error=response_error(received.error), usage=self._usage)
        )

    def _refused(self, received: Failed) -> list[Effect]:
        if self.opened:
            return self._failed(received)
        self.phase = Phase.CLOSED
        return [Refuse(received.error)]

    def _end(self, ending: State) -> list[Effect]:
        self._ending = ending
        frames = self._output.close("completed" if ending.status == "completed" else "incomplete")
        effects: list[Effect] = [Send(frames)] if frames else []
        if not self._store:
            return effects + self._close()
        save = Save(ending.status, self._shape.head(ending), list(self._output.items))
        self.phase = Phase.SAVING
        return [*effects, save]

    def _saved(self, _received: Saved) -> list[Effect]:
        return self._close()

    def _save_failed(self, received: SaveFailed) -> list[Effect]:
        self._error = received.error
        self._ending = State(
            status="failed", error=response_error(received.error), usage=self._usage
        )
        return self._close()

    def _close(self) -> list[Effect]:
        status = self._ending.status
        body = join(self._shape.head(self._ending), (item.item for item in self._output.items))
        frames = b""
        if self._error is not None:
            frames = self._events.event(b"error", b"," + stream_error(self._error))
        frames += self._events.lifecycle(status, body) + sse.DONE
        self.phase = Phase.CLOSED
        return [Send(frames), Close(status, body, self._error)]

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
    },
    Phase.CALLING: {
        WaitedLong: _row(_M._waited, Phase.CALLING),
        ModelAnswered: _row(_M._answered, Phase.STREAMING),
        Failed: _row(_M._refused, *_ENDS),
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
    },
    Phase.SAVING: {
        Saved: _row(_M._saved, Phase.CLOSED),
        SaveFailed: _row(_M._save_failed, Phase.CLOSED),
    },
    Phase.CLOSED: {},
}
