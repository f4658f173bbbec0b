"""What is done beside requests for vector stores."""

from __future__ import annotations

import asyncio
import time

from engine.retrieval_upkeep import RetrievalUpkeep
from storage.memory import MemoryStore


class _Full(MemoryStore):
    """A store with so many lots of chunks to be removed."""

    def __init__(self, lots: int) -> None:
        super().__init__(time.time)
        self.lots = lots
        self.empty = asyncio.Event()

    async def drop_chunks(self) -> bool:
        self.lots -= 1
        if self.lots == 0:
            self.empty.set()
        return self.lots > 0


async def test_chunks_of_what_is_gone_are_removed_without_an_index_too() -> None:
    """P7: one lot after the other, until there is none."""
    store = _Full(5)
    upkeep = RetrievalUpkeep(store, None)
    upkeep.start()
    async with asyncio.timeout(10):
        await store.empty.wait()
    await upkeep.stop()
    assert store.lots == 0
