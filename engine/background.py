"""Responses in the background: waiting in the store's queue until a worker has room for them.

A worker that accepts one is woken and looks at once; the others look every quarter of a second. Which of
the waiting is next is the store's to say, fair to all tenants.
"""

from __future__ import annotations

import asyncio
import logging

from engine.chore import Chore
from engine.errors import EngineError
from engine.live import Live
from engine.ports import Claim
from engine.takeover import TakeOver

_log = logging.getLogger(__name__)

# Seconds between two looks at the queue.
_LOOK = 0.25
# Most that are claimed at once: what waits here for its start waits in vain if this worker dies.
_AT_ONCE = 8


class Background:
    """Runs up to `most` responses that have no client of this worker's."""

    def __init__(self, live: Live, takeover: TakeOver, *, most: int) -> None:
        self._live = live
        self._takeover = takeover
        self._most = most
        self._running: set[asyncio.Task[None]] = set()
        self._looking = Chore(self._claim_queued, _LOOK)

    @property
    def room(self) -> int:
        """How many more can run."""
        return self._most - len(self._running)

    def start(self) -> None:
        """Take from the queue from now on."""
        self._looking.start()

    def wake(self) -> None:
        """Say that something was queued."""
        self._looking.wake()

    async def stop(self) -> None:
        """Take no more; what runs goes on."""
        await self._looking.stop()

    def run(self, claim: Claim) -> None:
        """Run a claim in the room that there is."""
        task = asyncio.get_running_loop().create_task(self._run(claim))
        self._running.add(task)
        task.add_done_callback(self._ended)

    async def _run(self, claim: Claim) -> None:
        try:
            await asyncio.wait({await self._takeover.take_over(claim)})
        except EngineError as error:
            # Its lease runs out, and somebody tries again.
            _log.warning("%s could not be run: %s", claim.lease.response_id, error.kind)
            self._live.means.meters.takeover_failed()

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._running.discard(task)
        self.wake()
        if not task.cancelled() and (error := task.exception()) is not None:
            _log.error("a run in the background broke", exc_info=error)

    async def _claim_queued(self) -> bool:
        wanted = min(self.room, _AT_ONCE)
        if wanted <= 0:
            return False
        claims = await self._live.means.store.claim(
            self._live.worker, self._live.means.limits.lease, queued=wanted, expired=0
        )
        for claim in claims:
            self.run(claim)
        return len(claims) == wanted
