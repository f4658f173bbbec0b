"""The events that carry the whole response: how it opens, and how it ends (rules R1, R2)."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from engine import sse
from engine.api.error import response_error, stream_error
from engine.api.events import EventWriter
from engine.api.response_object import ResponseObject, State, Usage, join
from engine.errors import EngineError
from engine.ports import EventBatch, StoredItem
from engine.response.effects import Close, Effect, Send


class End(msgspec.Struct, frozen=True):
    """How a response ends: its terminal state, whole and as a head, and the events that tell of it."""

    status: str
    head: bytes
    body: bytes
    events: EventBatch
    error: EngineError | None

    def released(self) -> list[Effect]:
        """Return what lets the client have it."""
        released = Send(self.events.frames + sse.DONE, self.events.last)
        return [released, Close(self.status, self.body, self.error)]


class Lifecycle:
    """Writes these events of one response."""

    def __init__(self, shape: ResponseObject, events: EventWriter) -> None:
        self._shape = shape
        self._events = events

    def opening(self, status: str, *kinds: str) -> bytes:
        """Return events that carry the object as it is before there is any output."""
        body = join(self._shape.head(State(status=status)), ())
        return b"".join(self._events.lifecycle(kind, body) for kind in kinds)

    def end(self, state: State, items: Iterable[StoredItem], error: EngineError | None) -> End:
        """Return the end with this state and output."""
        first, head = self._events.sequence, self._shape.head(state)
        frames = b""
        if error is not None:
            frames = self._events.event(b"error", b"," + stream_error(error))
        # The wire knows three terminal events (rule R1); docs/adr/0008.
        kind = "incomplete" if state.status == "cancelled" else state.status
        body = join(head, (item.item for item in items))
        frames += self._events.lifecycle(kind, body)
        events = EventBatch(first, self._events.sequence - 1, frames)
        return End(state.status, head, body, events, error)


def completed(at: int, cut: str | None, usage: Usage | None) -> State:
    """Return the state of a response whose last turn ended; `cut` says what cut it short."""
    return State(
        status="completed" if cut is None else "incomplete",
        completed_at=at if cut is None else None,
        incomplete_reason=cut,
        usage=usage,
    )


def failed(error: EngineError, usage: Usage | None) -> State:
    """Return the state of a response that failed."""
    return State(status="failed", error=response_error(error), usage=usage)
