"""Pieces on their way from who reads a request to who writes a blob, one task each.

A request that breaks off, by an error or by the end of its task, is told to the writer as an error, so that
it takes back what it has begun. A writer that has ended lets the giver go on.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

_PIECES = 2


class _Broken(OSError):
    """The giver has failed; it knows why."""


class Relay:
    """Hands pieces over, a few at a time."""

    def __init__(self) -> None:
        self._queue: asyncio.Queue[bytes | _Broken | None] = asyncio.Queue(_PIECES)
        self._closed = False

    async def give(self, piece: bytes) -> None:
        """Hand over a piece; waits while the writer is behind."""
        await self._put(piece)

    async def end(self) -> None:
        """Say that this was all."""
        await self._put(None)

    def break_off(self) -> None:
        """Say that the rest will not come, nor what was not taken yet: waits for no writer."""
        self._drop()
        self._queue.put_nowait(_Broken("the rest will not come"))

    def close(self) -> None:
        """Take nothing more: the writer has ended."""
        self._closed = True
        self._drop()

    async def pieces(self) -> AsyncIterator[bytes]:
        """Yield what is handed over, to its end; raises where the rest will not come."""
        while (piece := await self._queue.get()) is not None:
            if isinstance(piece, _Broken):
                raise piece
            yield piece

    async def _put(self, piece: bytes | None) -> None:
        if not self._closed:
            await self._queue.put(piece)

    def _drop(self) -> None:
        while not self._queue.empty():
            self._queue.get_nowait()
