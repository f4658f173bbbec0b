"""The responses that a worker runs, and the leases by which it runs them.

One task renews all leases together, one asks for cancels, both only while something runs. A renewal that
fails is tried again and never ends a run: a run whose lease may have run out goes on until the store says
that it is lost, because the fencing token keeps a second owner from doing harm (rule P4).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

import msgspec

from engine.errors import StorageUnavailable
from engine.loop import Loop
from engine.pipe import Pipe
from engine.ports import Lease
from engine.run import Means, Run
from engine.runs import Runs

_log = logging.getLogger(__name__)

# Seconds until a renewal that failed is tried again, at most.
_RETRY = 1.0


class Census(msgspec.Struct, frozen=True, kw_only=True):
    """What a worker runs at one moment: responses by kind, leases, and bytes that wait."""

    foreground: int
    detached: int
    background: int
    unstored: int
    leases: int
    pipe_bytes: int
    log_bytes: int


class Live:
    """Starts runs as tasks of their own and brings them the news of the store; `worker` is our name."""

    def __init__(self, means: Means, worker: str) -> None:
        self.means = means
        self.worker = worker
        self._runs = Runs()
        self._loops: dict[asyncio.Task[None], Loop] = {}
        self._pipes: dict[asyncio.Task[None], Pipe] = {}
        self._running: dict[str, Loop] = {}
        self._chores: list[asyncio.Task[None]] = []

    def __len__(self) -> int:
        """Return how many are running."""
        return len(self._runs)

    def start(self, run: Run, pipe: Pipe | None = None) -> asyncio.Task[None]:
        """Start a run; it goes on when its starter is cancelled. Without a pipe nobody looks on."""
        if pipe is None:
            pipe = Pipe(0)
            pipe.abandon()
        loop = Loop(run, pipe, self.means)
        task = self._runs.start(loop.run())
        self._pipes[task] = pipe
        task.add_done_callback(self._pipes.__delitem__)
        self._running[run.id] = loop
        task.add_done_callback(lambda _: self._forget(loop))
        if run.stored:
            self._loops[task] = loop
            task.add_done_callback(self._ended)
            self._begin_chores()
        return task

    def census(self) -> Census:
        """Return what there is now."""
        loops = self._loops.values()
        background = sum(loop.run_of.background for loop in loops)
        detached = sum(loop.detached for loop in loops)
        return Census(
            foreground=len(loops) - background - detached,
            detached=detached,
            background=background,
            unstored=len(self._runs) - len(loops),
            leases=sum(loop.lease is not None for loop in loops),
            pipe_bytes=sum(pipe.size for pipe in self._pipes.values()),
            log_bytes=sum(loop.unlogged for loop in loops),
        )

    def running(self, response_id: str) -> Loop | None:
        """Return the run of a response, if it runs here."""
        return self._running.get(response_id)

    def cancel(self, tenant: str, response_id: str) -> None:
        """End a response as cancelled at once, if it runs here and is accepted."""
        for loop in self._loops.values():
            lease = loop.lease
            if lease is not None and (lease.tenant, lease.response_id) == (tenant, response_id):
                loop.cancel()

    def hand_over(self) -> None:
        """Put every run that no client of ours waits for, and that can go on elsewhere, into the queue."""
        for loop in self._loops.values():
            if loop.run_of.background or loop.detached:
                loop.hand_over()

    async def drain(self, seconds: float) -> None:
        """Wait for the runs to end; after `seconds` hand over what can be and stop the others.

        Those are brought to a terminal state.
        """
        await self._runs.drain(seconds, self.hand_over)

    def _forget(self, loop: Loop) -> None:
        # Perhaps it runs again here, by another loop.
        if self._running.get(loop.run_of.id) is loop:
            del self._running[loop.run_of.id]

    def _ended(self, task: asyncio.Task[None]) -> None:
        del self._loops[task]
        if not self._loops:
            for chore in self._chores:
                chore.cancel()
            self._chores = []

    def _begin_chores(self) -> None:
        if self._chores:
            return
        limits = self.means.limits
        self._chores = [
            asyncio.create_task(_repeat(self._renew, limits.lease / 3)),
            asyncio.create_task(_repeat(self._ask_cancelled, limits.cancel_poll)),
        ]

    def _owned(self) -> dict[Lease, Loop]:
        return {loop.lease: loop for loop in self._loops.values() if loop.lease is not None}

    async def _renew(self) -> None:
        owned = self._owned()
        if not owned:
            return
        for lease in await self.means.store.renew(list(owned), self.means.limits.lease):
            owned[lease].lose_lease()

    async def _ask_cancelled(self) -> None:
        cancelled = await self.means.store.cancelled(self.worker)
        owned = self._owned()
        for lease in cancelled:
            if lease in owned:
                owned[lease].cancel()


async def _repeat(chore: Callable[[], Awaitable[None]], seconds: float) -> None:
    """Do a chore again and again; sooner where the store was away."""
    pause = seconds
    while True:
        await asyncio.sleep(pause)
        pause = seconds
        try:
            await chore()
        except StorageUnavailable as error:
            _log.warning("the store is away: %s", error)
            pause = min(seconds, _RETRY)
        except Exception:
            _log.exception("a chore broke")
