"""`engine.upkeep`: what has had its time is removed."""

from __future__ import annotations

import asyncio

from engine.errors import StorageUnavailable
from engine.upkeep import Upkeep
from storage.memory import MemoryStore


class Expiring(MemoryStore):
    """Has so many expired responses; is away the first time."""

    def __init__(self, expired: int) -> None:
        super().__init__()
        self.expired = expired
        self.away = True
        self.most = 0
        self.empty = asyncio.Event()

    async def remove_expired(self, *, limit: int) -> int:
        if self.away:
            self.away = False
            raise StorageUnavailable("away")
        removed = min(limit, self.expired)
        self.expired -= removed
        self.most = max(self.most, removed)
        if not self.expired:
            self.empty.set()
        return removed


async def test_expired_responses_are_removed_in_batches() -> None:
    """P7: a few at a time, all of them at once, whatever the store does meanwhile."""
    store = Expiring(1001)
    upkeep = Upkeep(store)
    upkeep.start()
    async with asyncio.timeout(5):
        await store.empty.wait()
    await upkeep.stop()
    assert store.most == 200
