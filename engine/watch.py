"""The news of one running response's event log: polled once, however many follow it here (rule P6).

Where the response runs in this very worker, its log writer wakes the poll at once. Elsewhere it is asked
about ten times a second, less often while nothing happens.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable

from engine.errors import EngineError
from engine.outage import outlast
from engine.ports import EventBatch, LoggedEvents

# Seconds between two polls while there is news, and after a long time without.
_SOON, _AT_LEAST = 0.1, 0.5
_SLOWER = 1.25
# Bytes of news that are kept for followers that are a little behind; who is further behind reads the store.
_KEPT = 1 << 20

Read = Callable[[int], Awaitable[LoggedEvents | None]]
"""Reads the events above a number; None once the response is gone."""


class Watch:
    """`followers` are counted by who uses it; it polls from `start` to `stop`.

    `failure` is set when the poll has given up: the store stayed away, or the response is gone.
    """

    def __init__(self, response_id: str, read: Read, *, outage: float, gone: EngineError) -> None:
        self.followers = 0
        self.failure: EngineError | None = None
        self._id = response_id
        self._read = read
        self._outage = outage
        self._gone = gone
        self._status = "in_progress"
        self._over = False
        self._batches: deque[EventBatch] = deque()
        self._size = 0
        self._last = -1
        self._changed = asyncio.Event()
        self._woken = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def start(self, after: int) -> None:
        """Take news from behind that event on, where it is not known already; begin to poll."""
        if not self.covers(after):
            self._batches.clear()
            self._size = 0
            # Also where the end was seen, or is just being read: what is behind that event is not known.
            self._over = False
            self.stop()
            self._task = None
        if self._task is None:
            self._last = after
            self._task = asyncio.get_running_loop().create_task(self._poll())

    def stop(self) -> None:
        """Poll no more."""
        if self._task is not None:
            self._task.cancel()

    def wake(self) -> None:
        """Look at once."""
        self._woken.set()

    def fail(self, error: EngineError) -> None:
        """Tell the followers that there will be no more news."""
        self.failure = error
        self._tell()

    def covers(self, after: int) -> bool:
        """True if nothing is missing between that event and what is kept."""
        return after >= (self._batches[0].first if self._batches else self._last + 1) - 1

    def since(self, after: int) -> LoggedEvents:
        """Return what is known behind that event."""
        batches = [batch for batch in self._batches if batch.last > after]
        return LoggedEvents(self._status, streamed=True, batches=batches, more=not self._over)

    def change(self) -> Awaitable[object]:
        """Return what ends with the next news, counted from this call and not from when it is awaited."""
        return self._changed.wait()

    async def _poll(self) -> None:
        pause = _SOON
        while not self._over:
            self._woken.clear()
            before = self._last
            try:
                await self._look()
            except EngineError as error:
                self.fail(error)
                return
            pause = _SOON if self._last > before else min(pause * _SLOWER, _AT_LEAST)
            if not self._over:
                await self._wait(pause)

    async def _wait(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                await self._woken.wait()
        except TimeoutError:
            pass

    async def _look(self) -> None:
        """Read what is new; raises EngineError when there is nothing to hope for."""
        found: list[LoggedEvents | None] = []

        async def attempt(_again: bool) -> None:
            found.append(await self._read(self._last))

        await outlast(attempt, f"who follows {self._id}", self._outage)
        page = found[-1]
        if page is None:
            raise self._gone
        for batch in page.batches:
            self._keep(batch)
        self._status = page.status
        self._over = not page.more and page.status not in ("queued", "in_progress")
        if page.more:
            self.wake()
        if page.batches or self._over:
            self._tell()

    def _keep(self, batch: EventBatch) -> None:
        self._batches.append(batch)
        self._size += len(batch.frames)
        self._last = max(self._last, batch.last)
        while self._size > _KEPT and len(self._batches) > 1:
            self._size -= len(self._batches.popleft().frames)

    def _tell(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()
