"""What joins a run and the client that reads it: a bounded buffer of events, or one whole answer.

One writer, one reader. The reader takes everything written so far in one piece, so a client or a gateway
that is slower than the model gets fewer and larger writes. When the reader has gone, writes are dropped:
the run decides what its client's leaving means.

What happens at the bound depends on the response. One that has an event log must not be held up by its
client: the pipe *spills*, and the reader goes on in the log. Otherwise the writer waits (rule E6).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from engine.answers import Answer
from engine.errors import EngineError


class Pipe:
    """`limit`: bytes that may wait for the reader. `spills`: the reader can go on without us."""

    def __init__(self, limit: int, *, spills: bool = False) -> None:
        self._limit = limit
        self._spills = spills
        self._frames: list[bytes] = []
        self._size = 0
        self._last = -1
        self._begun = False
        self._ended = False
        self._answer: Answer | None = None
        self._error: EngineError | None = None
        self._readable = asyncio.Event()
        self._writable = asyncio.Event()
        self._bounded = True
        self._read = True
        self.on_leave: Callable[[], None] | None = None
        """Called when the reader leaves before the end."""
        self.spilled = False
        """True once the reader has to go on in the event log, behind the event numbered `taken`."""
        self.taken = -1
        self.writes = 0
        """Counts what was written, so that silence can be told."""

    async def write(self, frames: bytes, last: int) -> None:
        """Add whole events, the last of which is numbered `last`; waits while too much is unread."""
        self.writes += 1
        self._begun = True
        if self._spills and self._bounded and self._size and self._size + len(frames) > self._limit:
            self._spill()
        self.put(frames)
        self._last = last
        while self._bounded and not self._spills and self._size > self._limit:
            self._writable.clear()
            await self._writable.wait()

    @property
    def size(self) -> int:
        """Bytes that wait for the reader."""
        return self._size

    @property
    def unread(self) -> bool:
        """True while something waits for the reader."""
        return bool(self._frames)

    def put(self, frames: bytes) -> None:
        """Add whole events without waiting; nothing follows the end."""
        if self._read and not self._ended and not self.spilled:
            self._frames.append(frames)
            self._size += len(frames)
            self._readable.set()

    def answer(self, answer: Answer) -> None:
        """Give a whole answer instead of a stream; without effect where there is an answer or an event."""
        if not self._ended and not self._begun:
            self._answer = answer
        self.end()

    def refuse(self, error: EngineError) -> None:
        """Give an error instead of a stream; without effect where there is an answer or an event."""
        if not self._ended and not self._begun:
            self._error = error
        self.end()

    def end(self) -> None:
        """Say that nothing follows."""
        self._ended = True
        self._readable.set()

    async def first(self) -> Answer | None:
        """Wait for what it is going to be: a whole answer, or None for a stream of events.

        Raises the error that was given instead of either.
        """
        await self._readable.wait()
        if self._error is not None:
            raise self._error
        return self._answer

    async def read(self) -> bytes | None:
        """Return everything written since the last read; None at the end, and where it spilled."""
        await self._readable.wait()
        if not self._frames:
            return None
        data = self._frames[0] if len(self._frames) == 1 else b"".join(self._frames)
        self._frames.clear()
        self._size = 0
        self.taken = self._last
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
        if self.on_leave is not None and not self._ended:
            self.on_leave()

    def _spill(self) -> None:
        self.spilled = True
        self._frames.clear()
        self._size = 0
        self._readable.set()


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
