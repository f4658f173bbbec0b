"""What the exchange needs of a transport: messages of one ext_proc stream, read and written.

gRPC is the largest cost of a streamed event (ADR 0006), so what carries the messages can be replaced
without touching what they mean.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Protocol

from extproc.pb.ext_proc_pb2 import ProcessingRequest, ProcessingResponse


class MessageStream(Protocol):
    """One ext_proc stream: one HTTP exchange at Envoy.

    Both methods raise `asyncio.CancelledError` when Envoy gives the stream up: the client has gone.
    """

    async def read(self) -> ProcessingRequest | None:
        """Return Envoy's next message; None when Envoy has ended the stream."""
        ...

    async def write(self, message: ProcessingResponse) -> None:
        """Send a message to Envoy."""
        ...


Serve = Callable[[MessageStream], Awaitable[None]]
"""Serves one stream; the stream is closed when it returns."""


class Transport(Protocol):
    """A server of exchanges: of ext_proc streams, or of HTTP requests."""

    async def start(self) -> None:
        """Listen and serve; returns when listening."""
        ...

    async def drain(self) -> None:
        """Tell health checks to send nothing new; go on serving."""
        ...

    async def stop(self, grace: float) -> None:
        """Refuse new exchanges, give the running ones `grace` seconds, and end.

        A second call with less time shortens the first.
        """
        ...


class Together:
    """Several transports as one. They start in order: the last one is the one that reports readiness."""

    def __init__(self, *transports: Transport) -> None:
        self._transports = transports

    async def start(self) -> None:
        """Start all of them."""
        for transport in self._transports:
            await transport.start()

    async def drain(self) -> None:
        """Drain all of them."""
        await asyncio.gather(*(transport.drain() for transport in self._transports))

    async def stop(self, grace: float) -> None:
        """Stop all of them, at the same time."""
        await asyncio.gather(*(transport.stop(grace) for transport in self._transports))
