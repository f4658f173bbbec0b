"""Chunks of what is gone: nobody waits for their removal, and it is done a lot at a time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import psycopg
import pytest
import pytest_asyncio

from engine.ports import FileCounts
from storage.postgres import dropping
from storage.postgres.pool import open_pool
from storage.postgres.store import PostgresStore
from tests.support.fix_postgres import empty_tables
from tests.support.vector_stores import (
    VECTOR,
    a_vector_store,
    an_attachment,
    attach,
    claim,
    gone,
    ingest,
    the_store,
)

_LOT = 10


@pytest_asyncio.fixture
async def store(database: str, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[PostgresStore]:
    """A store whose lots are small."""
    await empty_tables(database)
    monkeypatch.setattr(dropping, "_CHUNKS_AT_ONCE", _LOT)
    async with open_pool(database, max_size=4) as pool:
        yield PostgresStore(pool)


async def _chunks(database: str) -> dict[str, int]:
    """Return how many chunks there are, by tenant and attachment."""
    async with await psycopg.AsyncConnection.connect(database) as connection:
        cursor = await connection.execute(
            "SELECT tenant || ':' || attachment, count(*) FROM chunks GROUP BY 1"
        )
        return dict(await cursor.fetchall())


async def _dropped(database: str) -> int:
    async with await psycopg.AsyncConnection.connect(database) as connection:
        cursor = await connection.execute("SELECT count(*) FROM dropped_chunks")
        [count] = await cursor.fetchone() or [0]
        return int(count)


@asynccontextmanager
async def _held_chunks(database: str) -> AsyncIterator[None]:
    """Hold all chunks: whoever wants to remove one waits."""
    async with await psycopg.AsyncConnection.connect(database) as connection:
        await connection.execute("SELECT FROM chunks FOR UPDATE")
        yield


async def _large(store: PostgresStore, tenant: str, *file_ids: str, count: int = 25) -> None:
    """Complete files that have many chunks."""
    await attach(store, tenant, *file_ids)
    for each in await claim(store):
        await store.store_chunks(each.lease, 0, ["text"] * count, last=True)
        await store.finish_ingestion(each.lease, None)


_Act = Callable[[PostgresStore], Awaitable[object]]


_WAYS: dict[str, _Act] = {
    "detach": lambda store: store.detach("t", "vs", "f"),
    "replace": lambda store: store.attach("t", "vs", [an_attachment("f", again=1)]),
    "delete the file": lambda store: store.delete_file("t", "f"),
    "delete the store": lambda store: store.delete_vector_store("t", "vs"),
}


@pytest.mark.parametrize("way", sorted(_WAYS))
async def test_nobody_waits_for_chunks(store: PostgresStore, database: str, way: str) -> None:
    """P2: whatever takes a file away touches no chunk, and yet none is read any more."""
    await a_vector_store(store, "t")
    await _large(store, "t", "f")
    async with asyncio.timeout(20), _held_chunks(database):
        await _WAYS[way](store)
    assert await _chunks(database) == {"t:vs/f/0": 25}
    assert await store.chunk_texts("t", "vs/f/0", after=-1, limit=9) == []
    assert await store.chunks("t", "vs/f/0", model="m", after=-1, limit=9) == []
    assert await store.found("t", [("vs/f/0", 0)]) == {}
    assert await gone(store, "t") == ["vs/f/0"]
    if way != "delete the store":
        found = await the_store(store, "t")
        assert (found.usage_bytes, found.counts.completed) == (0, 0)


@pytest.mark.parametrize("end", ["fail", "cancel"])
async def test_nobody_waits_for_chunks_of_what_is_given_up(
    store: PostgresStore, database: str, end: str
) -> None:
    """P2: the same of what did not become complete, though it stays attached."""
    await a_vector_store(store, "t")
    await attach(store, "t", "f", batch="b")
    [claimed] = await claim(store)
    await store.store_chunks(claimed.lease, 0, ["text"] * 25, last=True)
    async with asyncio.timeout(20), _held_chunks(database):
        if end == "fail":
            await store.finish_ingestion(claimed.lease, ("server_error", "no"))
        else:
            await store.cancel_batch("t", "vs", "b")
    await store.store_vectors("t", "vs/f/0", model="m", vectors=[(0, VECTOR)])
    assert await _chunks(database) == {"t:vs/f/0": 25}
    assert await store.chunk_texts("t", "vs/f/0", after=-1, limit=9) == []
    assert await store.chunks("t", "vs/f/0", model="m", after=-1, limit=9) == []
    assert (await store.chunk_count("t", "vs/f/0", model="m")).chunks == 0
    while await store.drop_chunks():
        pass
    assert await _chunks(database) == {}


async def test_chunks_go_a_lot_at_a_time(store: PostgresStore, database: str) -> None:
    """X5: no transaction removes more, of whatever size the files are; the rest is not touched."""
    for tenant in ("t", "u"):
        await a_vector_store(store, tenant)
        await _large(store, tenant, "big", "kept")
        await attach(store, tenant, *(f"small{number}" for number in range(9)))
        await ingest(store, "one", "two", "three")
        for name in ("big", *(f"small{number}" for number in range(9))):
            await store.detach(tenant, "vs", name)
    before = await _chunks(database)
    lots = 0
    while await store.drop_chunks():
        left = await _chunks(database)
        for tenant in "tu":
            of = [sum(n for name, n in all.items() if name[0] == tenant) for all in (before, left)]
            assert 0 <= of[0] - of[1] <= _LOT
        before = left
        lots += 1
    assert lots >= 6
    assert before == {"t:vs/kept/0": 25, "u:vs/kept/0": 25}
    assert await _dropped(database) == 0
    assert (await the_store(store, "t")).counts == FileCounts(completed=1)


async def test_who_finds_others_at_work_leaves_it_to_them(
    store: PostgresStore, database: str
) -> None:
    """P4: workers do not wait for each other, nor do what is done already."""
    await a_vector_store(store, "t")
    await _large(store, "t", *"abcdef")
    for name in "abcdef":
        await store.detach("t", "vs", name)
    async with asyncio.timeout(20):
        async with await psycopg.AsyncConnection.connect(database) as other:
            await other.execute("SELECT FROM dropped_chunks FOR UPDATE")
            assert not await store.drop_chunks()

        async def work() -> None:
            while await _dropped(database):
                await store.drop_chunks()

        await asyncio.gather(work(), work(), work())
    assert await _chunks(database) == {}


async def test_of_a_tenant_that_is_removed_nothing_stays(
    store: PostgresStore, database: str
) -> None:
    """X1: chunks that were dropped before, too; those of another tenant stay."""
    for tenant in ("t", "u"):
        await a_vector_store(store, tenant)
        await _large(store, tenant, *"abc")
        await store.detach(tenant, "vs", "a")
    async with asyncio.timeout(20):
        await store.remove_tenant("t", limit=9)
    assert await _chunks(database) == {f"u:vs/{name}/0": 25 for name in "abc"}
    assert await _dropped(database) == 1


async def test_removing_a_tenant_waits_for_who_is_at_work(
    store: PostgresStore, database: str
) -> None:
    """X1: when it is done, no chunk of the tenant is there."""
    await a_vector_store(store, "t")
    await _large(store, "t", "a")
    await store.detach("t", "vs", "a")
    async with asyncio.timeout(20):
        async with await psycopg.AsyncConnection.connect(database) as worker:
            await worker.execute("SELECT FROM dropped_chunks FOR UPDATE")
            removing = asyncio.create_task(store.remove_tenant("t", limit=9))
            await asyncio.wait({removing}, timeout=0.3)
            assert not removing.done()
        await removing
    assert await _chunks(database) == {}
