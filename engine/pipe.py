"""What joins a run and the client that reads it: a bounded buffer of events, or one whole answer.

One writer, one reader. The reader takes everything written so far in one piece, so a client or a gateway
that is slower than the model gets fewer and larger writes. When the reader has gone, writes are dropped:
the run decides what its client's leaving means.
"""

from __future__ import annotations

import asyncio

from engine.answers import Answer


class Pipe:
    """`limit`: bytes that may wait for the reader before the writer does."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._frames: list[bytes] = []
        self._size = 0
        self._begun = False
        self._ended = False
        self._answer: Answer | None = None
        self._readable = asyncio.Event()
        self._writable = asyncio.Event()
        self._bounded = True
        self._read = True
        self.writes = 0
        """Counts what was written, so that silence can be told."""

    async def write(self, frames: bytes) -> None:
        """Add whole events; waits while too much is unread."""
        self.writes += 1
        self._begun = True
        self.put(frames)
        while self._bounded and self._size > self._limit:
            self._writable.clear()
            await self._writable.wait()

    @property
    def unread(self) -> bool:
        """True while something waits for the reader."""
        return bool(self._frames)

    def put(self, frames: bytes) -> None:
        """Add whole events without waiting; nothing follows the end."""
        if self._read and not self._ended:
            self._frames.append(frames)
            self._size += len(frames)
            self._readable.set()

    def answer(self, answer: Answer) -> None:
        """Give a whole answer instead of a stream; without effect where there is an answer or an event."""
        if not self._ended and not self._begun:
            self._answer = answer
        self.end()

    def end(self) -> None:
        """Say that nothing follows."""
        self._ended = True
        self._readable.set()

    async def first(self) -> Answer | None:
        """Wait for what it is going to be: a whole answer, or None for a stream of events."""
        await self._readable.wait()
        return self._answer

    async def read(self) -> bytes | None:
        """Return everything written since the last read; None at the end."""
        await self._readable.wait()
        if not self._frames:
            return None
        data = self._frames[0] if len(self._frames) == 1 else b"".join(self._frames)
        self._frames.clear()
        self._size = 0
        if not self._ended:
            self._readable.clear()
        self._writable.set()
        return data

    def release(self) -> None:
        """Let the writer write without waiting: what follows is short."""
        self._bounded = False
        self._writable.set()

    def abandon(self) -> None:
        """Say that nobody reads any more."""
        self._read = False
        self._frames.clear()
        self._size = 0
        self.release()


class Heartbeat:
    """Writes a comment into a pipe whenever nothing was written for `seconds` (rule R13)."""

    def __init__(self, pipe: Pipe, comment: bytes, seconds: float) -> None:
        self._pipe = pipe
        self._comment = comment
        self._seconds = seconds
        self._seen = pipe.writes
        self._timer = asyncio.get_running_loop().call_later(seconds, self._beat)

    def _beat(self) -> None:
        if self._pipe.writes == self._seen and not self._pipe.unread:
            self._pipe.put(self._comment)
        self._seen = self._pipe.writes
        self._timer = asyncio.get_running_loop().call_later(self._seconds, self._beat)

    def stop(self) -> None:
        """Beat no more."""
        self._timer.cancel()
