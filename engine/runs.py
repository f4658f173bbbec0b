"""The runs of one worker: tasks that belong to nobody's exchange, and their end when the worker stops."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine

_log = logging.getLogger(__name__)


class Runs:
    """Starts runs and holds them; `drain` ends them all."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[None]] = set()

    def __len__(self) -> int:
        """Return how many are running."""
        return len(self._tasks)

    def start(self, run: Coroutine[None, None, None]) -> asyncio.Task[None]:
        """Start a run; it goes on when its starter is cancelled."""
        task = asyncio.get_running_loop().create_task(run)
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            _log.error("a run broke", exc_info=error)

    async def drain(self, seconds: float, last: Callable[[], None] = lambda: None) -> None:
        """Wait for the runs to end; after `seconds` stop them, which brings each to an end of its own.

        `last` is called before they are stopped.
        """
        if not self._tasks:
            return
        _, late = await asyncio.wait(self._tasks, timeout=seconds)
        if late:
            last()
        for task in late:
            task.cancel()
        if late:
            _log.warning("stopping %d runs that did not end in time", len(late))
            await asyncio.wait(late)
