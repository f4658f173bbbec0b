"""Work that a worker does again and again beside its requests, and that no error of the store ends."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable

from engine.errors import IndexUnavailable, StorageUnavailable

_log = logging.getLogger(__name__)

# Seconds until a chore whose store was away is tried again, at most.
_RETRY = 1.0
# The same of one whose vector index was away: nobody waits for it, and each try may cost a deadline.
_INDEX_RETRY = 30.0


class Chore:
    """Does `work` every so many `seconds`, and at once when woken or while `work` returns True.

    `jitter` is the part of the time that is left to chance, so that workers do not march in step.
    """

    def __init__(
        self, work: Callable[[], Awaitable[bool]], seconds: float, *, jitter: float = 0.0
    ) -> None:
        self._work = work
        self._seconds = seconds
        self._jitter = jitter
        self._woken = asyncio.Event()
        self._stopping = False
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin."""
        self._task = asyncio.get_running_loop().create_task(self._run())

    def wake(self) -> None:
        """Do it again at once."""
        self._woken.set()

    async def stop(self) -> None:
        """End behind what is being done now: what it has taken in hand is not dropped."""
        self._stopping = True
        self.wake()
        if self._task is not None:
            await self._task

    async def _run(self) -> None:
        while not self._stopping:
            self._woken.clear()
            pause = await self._once()
            if pause and not self._stopping:
                await self._wait(pause)

    async def _once(self) -> float:
        """Do it once; return the seconds until the next time."""
        try:
            if await self._work():
                return 0.0
        except IndexUnavailable as error:
            _log.warning("%s waits for the vector index: %s", self._work.__qualname__, error)
            return min(self._pause(), _INDEX_RETRY)
        except StorageUnavailable as error:
            _log.warning("%s waits for the store: %s", self._work.__qualname__, error)
            return min(self._seconds, _RETRY)
        except Exception:
            _log.exception("%s broke", self._work.__qualname__)
        return self._pause()

    def _pause(self) -> float:
        return self._seconds * (1 + self._jitter * (random.random() - 0.5))

    async def _wait(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                await self._woken.wait()
        except TimeoutError:
            pass
