"""What is done beside requests for vector stores."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Collection

import pytest

from engine.errors import IndexUnavailable
from engine.retrieval_upkeep import RetrievalUpkeep, remove_gone
from storage.memory import MemoryStore
from tests.support.exact_index import ExactIndex
from tests.support.vector_stores import a_vector_store, attach
from tests.support.vectors import a_chunk


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


class _Slow(ExactIndex):
    """An index that removes a chunk at a time, and nothing of the tenants in `broken`."""

    def __init__(self, *broken: str) -> None:
        super().__init__()
        self.broken = set(broken)
        self.asked: list[str] = []
        self.empty = asyncio.Event()

    async def remove(self, tenant: str, store: str, attachments: Collection[str]) -> bool:
        self.asked.append(tenant)
        if tenant in self.broken:
            raise IndexUnavailable("no answer in time")
        here = [key for key in self._chunks if key[:2] == (tenant, store) and key[2] in attachments]
        for key in here[:1]:
            del self._chunks[key]
        if not self._chunks:
            self.empty.set()
        return not here


async def _gone(index: ExactIndex, *tenants: str) -> MemoryStore:
    """Return a store where each of these tenants has detached a file with three chunks."""
    store = MemoryStore(time.time)
    for tenant in tenants:
        await a_vector_store(store, tenant)
        await attach(store, tenant, "f")
        await index.insert(tenant, "vs", "vs/f/0", [a_chunk(number) for number in range(3)])
        await store.detach(tenant, "vs", "f")
    return store


async def test_what_is_gone_is_forgotten_when_none_of_it_is_left() -> None:
    """P7: an index may need several steps for a large file; whoever dies between them is followed."""
    index = _Slow()
    store = await _gone(index, "t")
    for left in (2, 1, 0):
        assert await remove_gone(store, index)
        assert await index.count("t", "vs", "vs/f/0") == left
        assert len(await store.removals(limit=9)) == 1
    assert await remove_gone(store, index)
    assert await store.removals(limit=9) == []
    assert not await remove_gone(store, index)


async def test_a_worker_works_off_everything_at_once() -> None:
    """P7: no step waits for the next look."""
    index = _Slow()
    store = await _gone(index, "t", "u")
    upkeep = RetrievalUpkeep(store, index)
    upkeep.start()
    async with asyncio.timeout(5):
        await index.empty.wait()
    await upkeep.stop()


async def test_what_fails_for_one_tenant_holds_up_no_other_one() -> None:
    """P2: the others have their turn in each sweep, however often his fails."""
    index = _Slow("b")
    store = await _gone(index, "a", "b", "c")
    for _ in range(4):
        assert await remove_gone(store, index)
    assert [each.tenant for each in await store.removals(limit=9)] == ["b"]
    with pytest.raises(IndexUnavailable):
        await remove_gone(store, index)
    index.broken.clear()
    while await remove_gone(store, index):
        pass
    assert index._chunks == {}


async def test_an_index_that_is_away_is_not_asked_for_every_store() -> None:
    """E4: each costs its deadline, and a worker that is to end waits for what it has in hand."""
    tenants = [str(number) for number in range(30)]
    index = _Slow(*tenants)
    store = await _gone(index, *tenants)
    with pytest.raises(IndexUnavailable):
        await remove_gone(store, index)
    assert len(index.asked) == 3


async def test_those_behind_stores_that_fail_have_their_turn() -> None:
    """P2: more of them fail than a sweep bears, and yet everything of the others goes."""
    broken = [f"a{number}" for number in range(4)]
    index = _Slow(*broken)
    store = await _gone(index, *broken, "b")
    async with asyncio.timeout(5):
        while await index.count("b", "vs", "vs/f/0"):
            with contextlib.suppress(IndexUnavailable):
                await remove_gone(store, index)
            await asyncio.sleep(0)
