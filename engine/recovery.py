"""What dead workers left is found and brought to an end, or run again (rule P4).

Each worker sweeps for runs whose lease ran out. A worker that starts takes what its own former life left, at
once. A few are taken at a time, and the next ones only when those have ended or run, so that a thousand of
them are a matter of time and not of memory, and none is held by a worker that has no hand free.
"""

from __future__ import annotations

import asyncio
import logging

from engine.background import Background
from engine.chore import Chore
from engine.errors import EngineError, StorageUnavailable
from engine.live import Live
from engine.ports import Claim
from engine.takeover import TakeOver

_log = logging.getLogger(__name__)

_AT_ONCE = 16
_LONGEST_PAUSE = 5.0


class Recovery:
    """Sweeps while a worker lives."""

    def __init__(self, live: Live, takeover: TakeOver, background: Background) -> None:
        self._live = live
        self._store = live.means.store
        self._lease = live.means.limits.lease
        self._takeover = takeover
        self._background = background
        self._inherited = False
        self._away = False
        self._patient_until = 0.0
        self._sweeping = Chore(self._sweep, min(self._lease / 4, _LONGEST_PAUSE), jitter=0.2)

    def start(self) -> None:
        """Inherit what the former life left, then sweep."""
        self._sweeping.start()

    async def stop(self) -> None:
        """Take no more."""
        await self._sweeping.stop()

    async def _sweep(self) -> bool:
        """Take over some; True if there may be more."""
        worker, meters = self._live.worker, self._live.means.meters
        if not self._inherited:
            claims = await self._store.inherit(worker, self._lease, limit=_AT_ONCE)
            self._inherited = len(claims) < _AT_ONCE
            meters.recovered("inherited", len(claims))
        elif await self._is_patient():
            return False
        else:
            claims = await self._expired()
            meters.recovered("expired", len(claims))
        if claims:
            _log.warning("taking over %d runs", len(claims))
        async with asyncio.TaskGroup() as group:
            for claim in claims:
                group.create_task(self._take(claim))
        return len(claims) == _AT_ONCE

    async def _is_patient(self) -> bool:
        """While the store was away nobody could renew a lease: all get the time to do it now (rule P2)."""
        clock = asyncio.get_running_loop().time
        if self._away:
            await self._store.cancelled(self._live.worker)  # raises while it is away
            self._away = False
            self._patient_until = clock() + self._lease
        return clock() < self._patient_until

    async def _expired(self) -> list[Claim]:
        try:
            return await self._store.claim(
                self._live.worker, self._lease, queued=0, expired=_AT_ONCE
            )
        except StorageUnavailable:
            self._away = True
            raise

    async def _take(self, claim: Claim) -> None:
        try:
            if not self._takeover.runs_again(claim):
                await asyncio.wait({await self._takeover.take_over(claim)})
            elif self._background.room > 0:
                self._background.run(claim)
            else:
                await self._store.release(claim.lease)
        except EngineError as error:
            # Its lease runs out again, and somebody tries again.
            self._live.means.meters.takeover_failed()
            _log.warning("%s could not be taken over: %s", claim.lease.response_id, error.kind)
        except Exception:
            self._live.means.meters.takeover_failed()
            _log.exception("%s could not be taken over", claim.lease.response_id)
