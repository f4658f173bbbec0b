"""The memory store with faults: any method fails, or waits, as the test says."""

from __future__ import annotations

import asyncio

from engine.errors import AlreadyAccepted, LeaseLost
from engine.ports import (
    CancelAsked,
    Claim,
    Context,
    EventBatch,
    FinishedResponse,
    Lease,
    LoggedEvents,
    NewResponse,
)
from storage.memory import MemoryResponseStore


class _Runs(MemoryResponseStore):
    """Until the memory store keeps runs itself."""

    def __init__(self) -> None:
        super().__init__()
        self.logs: dict[str, list[EventBatch]] = {}
        self.news: dict[str, NewResponse] = {}
        self.asked: set[str] = set()
        self.released: list[Lease] = []
        self.keys: dict[str, tuple[str, bytes]] = {}

    def _row(self, lease: Lease):
        _, row = self._find(lease.tenant, lease.response_id)
        if row is None or row.token != lease.token or row.output_end is not None:
            return None
        return row

    async def accept(self, new: NewResponse) -> Lease:
        if new.idempotency is not None and new.idempotency.key in self.keys:
            raise AlreadyAccepted(*self.keys[new.idempotency.key])
        lease = await super().accept(new)
        self.news[new.id] = new
        self.logs[new.id] = []
        if new.idempotency is not None:
            self.keys[new.idempotency.key] = (new.id, new.idempotency.digest)
        return lease

    async def abandon(self, lease: Lease) -> None:
        await super().abandon(lease)
        self.keys = {k: v for k, v in self.keys.items() if v[0] != lease.response_id}

    async def finish(self, finished: FinishedResponse, *, again: bool = False) -> None:
        await super().finish(finished, again=again)
        if finished.events is not None:
            self._log(finished.lease.response_id, finished.events)

    def _log(self, wanted: str, batch: EventBatch) -> None:
        log = self.logs[wanted]
        if not any(b.first == batch.first for b in log):
            assert batch.first == (log[-1].last + 1 if log else 0), (batch.first, log[-1:])
            log.append(batch)

    async def renew(self, leases: list[Lease], lease_seconds: float) -> list[Lease]:
        return [lease for lease in leases if self._row(lease) is None]

    async def claim(
        self, worker: str, lease_seconds: float, *, queued: int, expired: int
    ) -> list[Claim]:
        return []

    async def inherit(self, worker: str, lease_seconds: float, *, limit: int) -> list[Claim]:
        return []

    async def release(self, lease: Lease) -> None:
        row = self._row(lease)
        if row is not None:
            row.token += 1
            row.status = "queued"
            self.released.append(lease)

    async def ask_cancel(
        self, tenant: str, response_id: str, worker: str, lease_seconds: float
    ) -> CancelAsked | None:
        _, row = self._find(tenant, response_id)
        if row is None:
            return None
        self.asked.add(response_id)
        return CancelAsked(row.status)

    async def cancelled(self, worker: str) -> list[Lease]:
        found = []
        for mine in self._tenants:
            for row in self._tenants[mine].responses.values():
                if row.id in self.asked and row.output_end is None:
                    found.append(Lease(mine, row.id, row.token))
        return found

    async def append(self, lease: Lease, batch: EventBatch) -> None:
        if self._row(lease) is None:
            raise LeaseLost("lost")
        self._log(lease.response_id, batch)

    async def read_events(
        self, tenant: str, response_id: str, *, after: int, limit: int
    ) -> LoggedEvents | None:
        _, row = self._find(tenant, response_id)
        if row is None:
            return None
        batches = [b for b in self.logs[response_id] if b.last > after]
        return LoggedEvents(
            row.status, self.news[response_id].streamed, batches[:1], len(batches) > 1
        )

    async def remove_expired(self, *, limit: int) -> int:
        return 0

    async def remove_tenant(self, tenant: str, *, limit: int) -> int:
        return 0


class FaultyStore(_Runs):
    """`faults` are raised by the methods of these names, `holds` are waited for by them first."""

    def __init__(self) -> None:
        super().__init__()
        self.faults: dict[str, Exception] = {}
        self.holds: dict[str, asyncio.Event] = {}
        names = ("load_context", "accept", "abandon", "finish", "append", "renew", "cancelled")
        self.reached: dict[str, asyncio.Event] = {name: asyncio.Event() for name in names}

    async def load_context(self, tenant: str, response_id: str) -> Context | None:
        """The store's own, unless told otherwise."""
        await self._reach("load_context")
        return await super().load_context(tenant, response_id)

    async def accept(self, new: NewResponse) -> Lease:
        """The store's own, unless told otherwise."""
        await self._reach("accept")
        return await super().accept(new)

    async def abandon(self, lease: Lease) -> None:
        """The store's own, unless told otherwise."""
        await self._reach("abandon")
        await super().abandon(lease)

    async def finish(self, finished: FinishedResponse, *, again: bool = False) -> None:
        """The store's own, unless told otherwise."""
        await self._reach("finish")
        await super().finish(finished, again=again)

    async def append(self, lease: Lease, batch: EventBatch) -> None:
        """The store's own, unless told otherwise."""
        await self._reach("append")
        await super().append(lease, batch)

    async def renew(self, leases: list[Lease], lease_seconds: float) -> list[Lease]:
        """The store's own, unless told otherwise."""
        await self._reach("renew")
        return await super().renew(leases, lease_seconds)

    async def cancelled(self, worker: str) -> list[Lease]:
        """The store's own, unless told otherwise."""
        await self._reach("cancelled")
        return await super().cancelled(worker)

    async def _reach(self, name: str) -> None:
        self.reached[name].set()
        if name in self.holds:
            await self.holds[name].wait()
        if name in self.faults:
            raise self.faults[name]
