"""Group commit: concurrent writers share transactions, and nobody pays for another."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import psycopg
import pytest
import pytest_asyncio

from engine.errors import Conflict, LeaseLost, StorageUnavailable
from engine.ports import Lease, StoredItem
from engine.ports.meters import Meters
from storage.postgres.pool import Pool, open_pool
from storage.postgres.scope import Statement
from storage.postgres.store import PostgresStore
from storage.postgres.writer import GROUP_BYTES, LANES, LARGE_BYTES, Write, Writer
from tests.contract.suites import tenant
from tests.support.postgres_proxy import postgres_proxy
from tests.support.stored import a_response, an_end, begin, history, some_events

__all__ = ["tenant"]


@pytest_asyncio.fixture
async def pool(owned_database: str) -> AsyncIterator[Pool]:
    async with open_pool(owned_database) as pool:
        yield pool


class _Groups(Meters):
    """Keeps how many writers each transaction had."""

    def __init__(self) -> None:
        self.sizes: list[int] = []

    def commit(self, members: int, seconds: float) -> None:
        self.sizes.append(members)


# What the server says of a statement that took too long, without the time.
_TOO_SLOW = b"DO $$ BEGIN RAISE EXCEPTION 'slow' USING ERRCODE = 'query_canceled'; END $$"


def _probe(place: int, *, size: int = 0, sql: bytes = b"SELECT %(brought)s::bytea") -> Write:
    """Return a write of no row that brings so many bytes; in a group it stands at `place`."""
    statement = Statement(sql, {"tenant": "t", "brought": b"x" * size})
    return Write(statement, (0, "t", f"{place:03}"))


async def _leases(store: PostgresStore, tenant: str, count: int) -> list[Lease]:
    return [
        await store.accept(a_response(f"{tenant}-{number % 3}", f"r{number}", streamed=True))
        for number in range(count)
    ]


async def _transactions(conninfo: str, leases: list[Lease]) -> int:
    """Return how many transactions have written these responses."""
    async with await psycopg.AsyncConnection.connect(f"{conninfo} user=holdfast") as connection:
        cursor = await connection.execute(
            "SELECT count(DISTINCT xmin::text) FROM responses WHERE tenant = ANY (%s)",
            [sorted({lease.tenant for lease in leases})],
        )
        row = await cursor.fetchone()
    assert row is not None
    return int(row[0])


async def test_writers_that_come_at_once_share_a_transaction(
    pool: Pool, owned_database: str, tenant: str
) -> None:
    """P1: of thirty, over three tenants, the first go alone and the others together; all are there."""
    store = PostgresStore(pool)
    leases = await _leases(store, tenant, 30)
    async with asyncio.timeout(10):
        await asyncio.gather(*(store.finish(an_end(lease)) for lease in leases))
    assert await _transactions(owned_database, leases) <= LANES + 1
    for lease in leases:
        name = lease.response_id
        assert await history(store, lease.tenant, name) == [f"{name}/in", f"{name}/out"]


async def test_a_writer_that_may_not_write_costs_the_others_nothing(
    pool: Pool, owned_database: str, tenant: str
) -> None:
    """P4: lost leases in the middle of a group, which is still one transaction."""
    store = PostgresStore(pool)
    leases = await _leases(store, tenant, 20)
    for lost in leases[3:20:5]:
        await store.delete(lost.tenant, lost.response_id)
    async with asyncio.timeout(10):
        results = await asyncio.gather(
            *(store.finish(an_end(lease)) for lease in leases), return_exceptions=True
        )
    assert [type(result) for result in results[3:20:5]] == [LeaseLost] * 4
    assert results.count(None) == 16
    assert await _transactions(owned_database, leases) <= LANES + 1


async def test_a_writer_that_fails_costs_the_others_nothing(pool: Pool, tenant: str) -> None:
    """P1: an id that exists is a conflict for whoever brings it; the group is written without it."""
    store = PostgresStore(pool)
    await begin(store, tenant, "r7")
    async with asyncio.timeout(10):
        results = await asyncio.gather(
            *(store.accept(a_response(tenant, f"r{number}")) for number in range(20)),
            return_exceptions=True,
        )
    assert [number for number, each in enumerate(results) if isinstance(each, Conflict)] == [7]
    for number in range(20):
        assert await history(store, tenant, f"r{number}") == [f"r{number}/in"]


async def test_a_writer_that_has_to_wait_for_a_lock_does_not_hold_up_the_others(
    pool: Pool, owned_database: str, tenant: str
) -> None:
    """P2: the others are written meanwhile."""
    store = PostgresStore(pool)
    leases = await _leases(store, tenant, 10)
    async with await psycopg.AsyncConnection.connect(f"{owned_database} user=holdfast") as other:
        await other.execute(
            "UPDATE runs SET work = work WHERE tenant = %s AND response_id = %s",
            [leases[5].tenant, "r5"],
        )
        writes = [asyncio.ensure_future(store.finish(an_end(lease))) for lease in leases]
        async with asyncio.timeout(10):
            await asyncio.gather(*(write for n, write in enumerate(writes) if n != 5))
            assert not writes[5].done()
            await store.append(
                await store.accept(a_response(tenant, "more", streamed=True)), some_events(0, 1)
            )
            await other.rollback()
            await writes[5]


async def test_a_cancelled_writer_costs_the_others_nothing(pool: Pool, tenant: str) -> None:
    """P1: whether it goes alone, waits for its group, or is in one."""
    store = PostgresStore(pool)
    for victim in (0, 5, 9):
        names = [f"{victim}-{number}" for number in range(10)]
        writes = [asyncio.ensure_future(store.accept(a_response(tenant, name))) for name in names]
        await asyncio.sleep(0)
        writes[victim].cancel()
        async with asyncio.timeout(10):
            results = await asyncio.gather(*writes, return_exceptions=True)
            await begin(store, tenant, f"{victim}-after")
        assert [type(each) for n, each in enumerate(results) if n != victim] == [Lease] * 9


@pytest.mark.parametrize("lost", [1, 2])
async def test_a_group_whose_answer_was_lost_is_written_once(
    owned_database: str, tenant: str, lost: int
) -> None:
    """P1, P4: accepts, appends and finishes are recognised, each by itself."""
    async with (
        postgres_proxy(owned_database) as proxy,
        open_pool(proxy.conninfo, min_size=1, max_size=1) as pool,
    ):
        store = PostgresStore(pool)
        leases = await _leases(store, tenant, 8)
        proxy.lose_answers = lost
        async with asyncio.timeout(20):
            results = await asyncio.gather(
                *(store.finish(an_end(lease)) for lease in leases[:4]),
                *(store.append(lease, some_events(0, 1)) for lease in leases[4:]),
                *(store.accept(a_response(tenant, f"n{number}")) for number in range(4)),
                return_exceptions=True,
            )
        assert proxy.lose_answers == 0
        assert [type(result).__name__ for result in results] == ["NoneType"] * 8 + ["Lease"] * 4
        for lease in leases[4:]:
            log = await store.read_events(lease.tenant, lease.response_id, after=-1, limit=99)
            assert log is not None
            assert log.batches == [some_events(0, 1)]
        with pytest.raises(LeaseLost):
            await store.finish(an_end(leases[0]))


async def test_writers_fail_together_when_the_server_is_away(
    owned_database: str, tenant: str
) -> None:
    """P2: each with its own error; the next write after the server is back succeeds."""
    async with postgres_proxy(owned_database) as proxy, open_pool(proxy.conninfo) as pool:
        store = PostgresStore(pool)
        leases = await _leases(store, tenant, 10)
        await proxy.close()
        async with asyncio.timeout(10):
            results = await asyncio.gather(
                *(store.finish(an_end(lease)) for lease in leases), return_exceptions=True
            )
        assert {type(result) for result in results} == {StorageUnavailable}
        assert len({id(result) for result in results}) == 10
        await proxy.open()
        async with asyncio.timeout(10):
            await asyncio.gather(*(store.finish(an_end(lease), again=True) for lease in leases))


async def test_a_group_is_bounded_by_bytes(pool: Pool) -> None:
    """P1, X5: what is more than one deadline is good for goes in several groups."""
    groups = _Groups()
    writer = Writer(pool, groups)
    size = GROUP_BYTES // 5  # four of them, with what else a write brings
    async with asyncio.timeout(20):
        await asyncio.gather(*(writer.write(_probe(n, size=size)) for n in range(LANES + 10)))
    assert sorted(groups.sizes) == [1] * LANES + [2, 4, 4]


async def test_a_large_write_goes_alone(pool: Pool) -> None:
    """P1: the group of the others is one transaction without it."""
    groups = _Groups()
    writer = Writer(pool, groups)
    large = [_probe(n, size=LARGE_BYTES + 1) for n in range(5)]
    small = [_probe(n) for n in range(LANES + 10)]
    async with asyncio.timeout(20):
        await asyncio.gather(*map(writer.write, large + small))
    assert sorted(groups.sizes) == [1] * (LANES + 5) + [10]


async def test_large_writes_that_wait_do_not_hold_up_small_ones(
    owned_database: str, tenant: str
) -> None:
    """P2: many large ones of one tenant are on their way, and another tenant's are written meanwhile."""
    output = [StoredItem("large", "message", b'"' + b"x" * LARGE_BYTES + b'"', b"y")]
    async with (
        open_pool(owned_database, timeout=30) as pool,
        await psycopg.AsyncConnection.connect(f"{owned_database} user=holdfast") as other,
    ):
        store = PostgresStore(pool)
        leases = await _leases(store, tenant, 12)
        await other.execute("SELECT 1 FROM runs WHERE tenant LIKE %s FOR UPDATE", [f"{tenant}-%"])
        writes = [
            asyncio.ensure_future(store.finish(an_end(lease, output=output))) for lease in leases
        ]
        async with asyncio.timeout(20):
            for number in range(5):
                await begin(store, f"{tenant}-else", f"n{number}")
            assert not any(write.done() for write in writes)
            await other.rollback()
            await asyncio.gather(*writes)


async def test_a_statement_that_takes_too_long_fails_nobody_else(pool: Pool) -> None:
    """P1: the server gives up one statement of the group; the others are written."""
    writer = Writer(pool)
    writes = [_probe(n) for n in range(LANES + 8)]
    writes[LANES + 3] = _probe(LANES + 3, sql=_TOO_SLOW)
    async with asyncio.timeout(20):
        results = await asyncio.gather(*map(writer.write, writes), return_exceptions=True)
    failed = {n: type(each) for n, each in enumerate(results) if isinstance(each, Exception)}
    assert failed == {LANES + 3: StorageUnavailable}
