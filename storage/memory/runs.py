"""Runs, their event logs and retention in the memory of one process."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from engine.ports import CancelAsked, Claim, EventBatch, Lease, LoggedEvents
from storage.limits import lease_lost
from storage.memory.responses import MemoryResponses
from storage.memory.threads import Response, Run, remove, remove_empty_threads

_UNFINISHED = ("queued", "in_progress")


class MemoryRuns(MemoryResponses):
    """`engine.ports.RunStore` over the same responses."""

    # -- leases -----------------------------------------------------------------------------------

    async def renew(self, leases: list[Lease], lease_seconds: float) -> list[Lease]:
        """Prolong leases; return those that are lost."""
        lost = []
        for lease in leases:
            response = self._held(lease)
            if response is None or response.run is None:
                lost.append(lease)
            else:
                response.run.expires_at = self._clock() + lease_seconds
        return lost

    async def claim(
        self, worker: str, lease_seconds: float, *, queued: int, expired: int
    ) -> list[Claim]:
        """Take queued runs, fairly among tenants, and runs whose lease ran out."""
        waiting = sorted(
            ((t, r, run) for t, r, run in self._runs() if run.owner is None),
            key=lambda entry: entry[2].queued_at,
        )
        running = Counter(t for t, _, run in self._runs() if run.owner is not None)
        taken: list[tuple[str, Response, Run]] = []
        while waiting and len(taken) < queued:
            chosen = min(waiting, key=lambda entry: (running[entry[0]], entry[2].queued_at))
            waiting.remove(chosen)
            running[chosen[0]] += 1
            taken.append(chosen)
        now = self._clock()
        over = [e for e in self._runs() if e[2].owner is not None and e[2].expires_at <= now]
        return [
            *(self._take(entry, worker, lease_seconds) for entry in taken),
            *(self._take(entry, worker, lease_seconds) for entry in over[:expired]),
        ]

    async def inherit(self, worker: str, lease_seconds: float, *, limit: int) -> list[Claim]:
        """Take runs that an earlier life of this worker left."""
        place = worker.partition("#")[0] + "#"
        left = [
            entry
            for entry in self._runs()
            if entry[2].owner is not None
            and entry[2].owner.startswith(place)
            and entry[2].owner != worker
        ]
        return [self._take(entry, worker, lease_seconds) for entry in left[:limit]]

    async def release(self, lease: Lease) -> None:
        """Put a run back into the queue; no-op if the lease is lost."""
        response = self._held(lease)
        if response is not None and response.run is not None:
            response.run.owner = None
            response.run.attempts -= 1
            response.status = "queued"

    # -- cancelling -------------------------------------------------------------------------------

    async def ask_cancel(
        self, tenant: str, response_id: str, worker: str, lease_seconds: float
    ) -> CancelAsked | None:
        """Note that a response shall end; None if there is no such response."""
        _, response = self._find(tenant, response_id)
        if response is None:
            return None
        if response.run is None:
            return CancelAsked(response.status)
        response.run.cancel = True
        if response.run.owner is not None:
            return CancelAsked(response.status)
        status = response.status
        entry = (tenant, response, response.run)
        return CancelAsked(status, self._take(entry, worker, lease_seconds))

    async def cancelled(self, worker: str) -> list[Lease]:
        """Return the leases of this worker whose cancel was asked for."""
        return [
            Lease(tenant, response.id, run.token)
            for tenant, response, run in self._runs()
            if run.owner == worker and run.cancel
        ]

    # -- event logs -------------------------------------------------------------------------------

    async def append(self, lease: Lease, batch: EventBatch) -> None:
        """Add events to the log; raises `LeaseLost`."""
        response = self._held(lease)
        if response is None:
            raise lease_lost(lease)
        response.events.setdefault(batch.first, batch)

    async def read_events(
        self, tenant: str, response_id: str, *, after: int, limit: int
    ) -> LoggedEvents | None:
        """Return the events numbered above `after`, about `limit` bytes; None if there is none such."""
        _, response = self._find(tenant, response_id)
        if response is None:
            return None
        wanted = [batch for _, batch in sorted(response.events.items()) if batch.last > after]
        taken: list[EventBatch] = []
        size = 0
        for batch in wanted:
            if taken and size + len(batch.frames) > limit:
                break
            taken.append(batch)
            size += len(batch.frames)
        return LoggedEvents(
            response.status, response.new.streamed, taken, more=len(taken) < len(wanted)
        )

    # -- retention --------------------------------------------------------------------------------

    async def remove_expired(self, *, limit: int) -> int:
        """Remove finished responses whose time has come, and empty threads."""
        now = self._clock()
        over = [
            (mine, response)
            for mine in self._tenants.values()
            for response in mine.responses.values()
            if response.run is None
            and response.expires_at is not None
            and response.expires_at <= now
        ]
        for mine, response in over[:limit]:
            remove(mine, response)
            remove_empty_threads(mine)
        return len(over[:limit])

    async def remove_tenant(self, tenant: str, *, limit: int) -> int:
        """Remove responses of a tenant, running ones too."""
        mine = self._tenants.get(tenant)
        if mine is None:
            return 0
        gone = list(mine.responses.values())[:limit]
        for response in gone:
            remove(mine, response)
        remove_empty_threads(mine)
        return len(gone)

    def _runs(self) -> Iterator[tuple[str, Response, Run]]:
        for tenant, mine in self._tenants.items():
            for response in mine.responses.values():
                if response.run is not None:
                    yield tenant, response, response.run

    def _take(self, entry: tuple[str, Response, Run], worker: str, lease_seconds: float) -> Claim:
        tenant, response, run = entry
        fresh = run.owner is None
        run.owner = worker
        run.expires_at = self._clock() + lease_seconds
        run.token += 1
        run.attempts += 1
        response.status = "in_progress"
        return Claim(
            lease=Lease(tenant, response.id, run.token),
            attempts=run.attempts,
            background=response.new.background,
            streamed=response.new.streamed,
            cancel=run.cancel,
            fresh=fresh,
            head=response.head,
            work=response.new.work,
        )
