"""The memory store with faults: any method fails, or waits, as the test says."""

from __future__ import annotations

import asyncio

from engine.ports import Context, EventBatch, FinishedResponse, Lease, NewResponse
from storage.limits import READS, Reads
from storage.memory import MemoryStore


class FaultyStore(MemoryStore):
    """`faults` are raised by the methods of these names, `holds` are waited for by them first."""

    def __init__(self, reads: Reads = READS) -> None:
        super().__init__(reads=reads)
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
