"""The model server, the client and the clock, as ports."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from typing import Protocol

from engine.answers import Answer


class ModelAnswer(Protocol):
    """A model server's answer whose status is known and whose body is still to come."""

    status: int
    media_type: str
    """Lower case, without parameters."""
    retry_after: int | None
    """Seconds, from `Retry-After`; None where there is none."""

    def chunks(self) -> AsyncIterator[bytes]:
        """Yield the body as it arrives; raises `UpstreamFailed` when it breaks off or stays silent."""
        ...

    async def read(self, limit: int) -> bytes:
        """Return the body, at most `limit` bytes of it; raises `UpstreamFailed`."""
        ...

    async def finish(self) -> None:
        """Let go of an answer that was read to its terminal event; the connection is kept if it can be."""
        ...

    def close(self) -> None:
        """Let go of the answer; aborts the call at once where the body has not ended."""
        ...


class ModelClient(Protocol):
    """The way to the model server, through Envoy's model listener."""

    async def call(self, path: str, body: bytes, headers: Mapping[str, str]) -> ModelAnswer:
        """POST one turn and return when the status is known; raises `UpstreamFailed`."""
        ...


class Told(Protocol):
    """What may be known of a response: ids, names and counts, as far as it has come."""

    @property
    def usage(self) -> object:
        """The tokens of the turns that have ended: another object when there are more, None without any."""
        ...

    def facts(self) -> Mapping[str, str | int | float | bool]:
        """Return it by name; what is not known yet is left out."""
        ...


class Reply(Protocol):
    """The client's side of one exchange, as the engine sees it."""

    def tell(self, told: Told) -> None:
        """Take what becomes of the response, for whoever accounts for the exchange besides its client.

        It is read when the answer begins, behind each turn of the model, and when the answer ends.
        """
        ...

    async def answer(self, answer: Answer) -> None:
        """Send a whole answer; nothing can follow it."""
        ...

    async def open(self) -> None:
        """Start a 200 with an event stream."""
        ...

    async def write(self, frames: bytes) -> None:
        """Send whole events."""
        ...

    async def end(self) -> None:
        """End the event stream."""
        ...


class Clock(Protocol):
    """Unix time in whole seconds."""

    def __call__(self) -> int:
        """Return now."""
        ...
