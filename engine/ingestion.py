"""Files of vector stores on their way into the index: claimed from the store's queue, cut, embedded, put in.

Whatever was done of a file is kept: who takes it over finds its chunks and their vectors, and puts in again
what the index may have, in place of itself. What may work later is put back into the queue.
"""

from __future__ import annotations

import asyncio
import logging
from functools import partial

import msgspec

from engine.chore import Chore
from engine.errors import EngineError
from engine.ingestion_job import Endurance, IngestionJob, IngestionParts
from engine.ports import IngestionLease

_log = logging.getLogger(__name__)

# Seconds between two looks at the queue.
_LOOK = 0.5
# Most that are claimed at once: what waits here for its start waits in vain if this worker dies.
_AT_ONCE = 4


class IngestionLimits(msgspec.Struct, frozen=True, kw_only=True):
    """`most` files are ingested at a time, owned for `lease` seconds, with so much `endurance`."""

    most: int = 2
    lease: float = 30.0
    endurance: Endurance = Endurance()


class Ingestion:
    """Ingests files while a worker lives; `worker` names it in leases."""

    def __init__(self, parts: IngestionParts, limits: IngestionLimits, worker: str) -> None:
        self._parts = parts
        self._store = parts.indexing.store
        self._limits = limits
        self._worker = worker
        self._jobs: dict[IngestionLease, IngestionJob] = {}
        self._running: dict[IngestionLease, asyncio.Task[None]] = {}
        self._claiming = Chore(self._claim, _LOOK, jitter=0.5)
        self._renewing = Chore(self._renew, limits.lease / 3)

    def start(self) -> None:
        """Begin."""
        if self._limits.most:
            self._claiming.start()
            self._renewing.start()

    def wake(self) -> None:
        """Say that a file was attached."""
        self._claiming.wake()

    async def stop(self) -> None:
        """End: what runs is put back, for another worker to go on with."""
        await self._claiming.stop()
        running = dict(self._running)
        for task in running.values():
            task.cancel()
        await asyncio.gather(*running.values(), return_exceptions=True)
        await self._renewing.stop()
        for lease in running:
            await self._put_back(lease)

    async def _claim(self) -> bool:
        wanted = min(self._limits.most - len(self._running), _AT_ONCE)
        if wanted <= 0:
            return False
        claims = await self._store.claim_ingestions(self._worker, self._limits.lease, limit=wanted)
        for claim in claims:
            job = IngestionJob(self._parts, claim, self._limits.endurance)
            task = asyncio.create_task(job.run())
            self._jobs[claim.lease] = job
            self._running[claim.lease] = task
            task.add_done_callback(partial(self._ended, claim.lease))
        return len(claims) == wanted

    def _ended(self, lease: IngestionLease, task: asyncio.Task[None]) -> None:
        del self._running[lease], self._jobs[lease]
        self._claiming.wake()
        if not task.cancelled() and (error := task.exception()) is not None:
            _log.error("an ingestion broke", exc_info=error)

    async def _put_back(self, lease: IngestionLease) -> None:
        """Give up a lease; no-op for one that has ended."""
        try:
            await self._store.put_back_ingestion(lease, seconds=0)
        except EngineError as error:
            _log.warning("%s could not be put back: %s", lease.attachment, type(error).__name__)

    async def _renew(self) -> bool:
        owned = dict(self._running)
        if owned:
            lost = await self._store.renew_ingestions(list(owned), self._limits.lease)
            for lease in lost:
                # One that ends gives up its lease itself, and puts right what is left to do behind that.
                if (job := self._jobs.get(lease)) is not None and not job.ending:
                    owned[lease].cancel()
        return False
