"""The Postgres store while servers, networks and connections fail."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import psycopg
import pytest

from engine.errors import Conflict, LeaseLost, StorageUnavailable
from engine.ports.meters import Meters, StorageTrouble
from storage.postgres.embedded import embedded_postgres
from storage.postgres.migrate import migrate
from storage.postgres.pool import open_pool
from storage.postgres.store import PostgresStore
from tests.contract.suites import tenant
from tests.support.postgres_proxy import PostgresProxy, postgres_proxy
from tests.support.stored import a_response, an_end, begin, context, history, turn

__all__ = ["tenant"]


@asynccontextmanager
async def _one_connection(
    database: str,
) -> AsyncIterator[tuple[PostgresProxy, PostgresStore]]:
    """Yield a store with a single connection, and the proxy that it goes through."""
    async with (
        postgres_proxy(database) as proxy,
        open_pool(proxy.conninfo, min_size=1, max_size=1) as pool,
    ):
        yield proxy, PostgresStore(pool)


@pytest.mark.parametrize("lost", [1, 2])
async def test_an_accept_whose_answer_was_lost_is_accepted_once(
    database: str, tenant: str, lost: int
) -> None:
    """P1: the repetition finds what the first attempt has committed."""
    async with _one_connection(database) as (proxy, store):
        await turn(store, tenant, "r1")
        await turn(store, tenant, "r2", after="r1")  # so that the statement is prepared
        point = (await context(store, tenant, "r2")).end
        proxy.lose_answers = lost
        lease = await store.accept(a_response(tenant, "r3", after=point))
        assert proxy.lose_answers == 0
        await store.finish(an_end(lease))
        assert (await history(store, tenant, "r3"))[-4:] == ["r2/in", "r2/out", "r3/in", "r3/out"]
        with pytest.raises(Conflict):
            await store.accept(a_response(tenant, "r3"))


@pytest.mark.parametrize("lost", [1, 2])
async def test_a_finish_whose_answer_was_lost_is_finished_once(
    database: str, tenant: str, lost: int
) -> None:
    """P1, P4: it is acknowledged; another finish under the same token is still refused."""
    async with _one_connection(database) as (proxy, store):
        await turn(store, tenant, "r1")
        lease = await begin(store, tenant, "r2", after="r1")
        proxy.lose_answers = lost
        await store.finish(an_end(lease))
        assert proxy.lose_answers == 0
        assert await history(store, tenant, "r2") == ["r1/in", "r1/out", "r2/in", "r2/out"]
        with pytest.raises(LeaseLost):
            await store.finish(an_end(lease))


async def test_reads_and_removals_survive_a_lost_answer(database: str, tenant: str) -> None:
    """P2: they are simply repeated."""
    async with _one_connection(database) as (proxy, store):
        await turn(store, tenant, "r1")
        lease = await begin(store, tenant, "gone", after="r1")
        proxy.lose_answers = 1
        await store.abandon(lease)
        proxy.lose_answers = 1
        assert await history(store, tenant, "r1") == ["r1/in", "r1/out"]
        proxy.lose_answers = 1
        await store.delete(tenant, "r1")
        assert proxy.lose_answers == 0
        assert await store.get(tenant, "r1") is None


async def test_a_server_that_is_away_is_reported_at_once_and_used_when_it_is_back(
    database: str, tenant: str
) -> None:
    """P2: neither the failure nor the recovery waits for a time-out."""
    async with postgres_proxy(database) as proxy, open_pool(proxy.conninfo, timeout=5.0) as pool:
        store = PostgresStore(pool)
        await turn(store, tenant, "r1")
        await proxy.close()
        for _ in range(3):
            started = time.monotonic()
            with pytest.raises(StorageUnavailable) as caught:
                await store.get(tenant, "r1")
            assert time.monotonic() - started < 1.0
            assert caught.value.retry_after == 1
            assert caught.value.__cause__ is not None
        await proxy.open()
        started = time.monotonic()
        assert await history(store, tenant, "r1") == ["r1/in", "r1/out"]
        assert time.monotonic() - started < 1.0


async def test_a_server_that_falls_silent_is_given_up_within_the_timeout(
    database: str, tenant: str
) -> None:
    """P2: also for those that wait for a connection; and it is used when it speaks again."""
    async with (
        postgres_proxy(database) as proxy,
        open_pool(proxy.conninfo, min_size=1, max_size=2, timeout=0.5) as pool,
    ):
        store = PostgresStore(pool)
        await turn(store, tenant, "r1")
        proxy.fall_silent()
        started = time.monotonic()
        async with asyncio.timeout(10):
            results = await asyncio.gather(
                *(store.get(tenant, "r1") for _ in range(6)), return_exceptions=True
            )
        assert time.monotonic() - started < 3.0
        assert {type(result) for result in results} == {StorageUnavailable}
        proxy.speak()
        async with asyncio.timeout(10):
            assert await _until_available(store, tenant) == ["r1/in", "r1/out"]


async def test_a_silent_server_is_not_counted_as_a_pool_that_is_too_small(
    database: str, tenant: str
) -> None:
    """P2: where no connection can be opened none can become free; where all are at work it is the pool."""
    meters = _Troubles()
    async with (
        postgres_proxy(database) as proxy,
        open_pool(proxy.conninfo, min_size=1, max_size=1, timeout=0.5, meters=meters) as pool,
    ):
        taken, gate = asyncio.Event(), asyncio.Event()

        async def holds(_connection: object, _attempt: int) -> None:
            taken.set()
            await gate.wait()

        busy = asyncio.create_task(pool.run(holds))
        await taken.wait()
        with pytest.raises(StorageUnavailable, match="became free"):
            await PostgresStore(pool).get(tenant, "r1")
        gate.set()
        await busy
        assert meters.told == ["pool"]

    meters.told.clear()
    async with postgres_proxy(database) as proxy:
        proxy.fall_silent()
        async with open_pool(proxy.conninfo, max_size=2, timeout=0.5, meters=meters) as pool:
            with pytest.raises(StorageUnavailable, match="not available"):
                await PostgresStore(pool).get(tenant, "r1")
            assert meters.told == ["unavailable"]


class _Troubles(Meters):
    """Keeps the kinds of errors."""

    def __init__(self) -> None:
        self.told: list[str] = []

    def storage_error(self, trouble: StorageTrouble) -> None:
        self.told.append(trouble)


async def _until_available(store: PostgresStore, tenant: str) -> list[str]:
    while True:
        try:
            return await history(store, tenant, "r1")
        except StorageUnavailable:
            await asyncio.sleep(0.01)


async def test_a_statement_that_waits_too_long_is_ended_by_the_server(
    database: str, tenant: str
) -> None:
    """P2: a lock that somebody else holds delays us for the timeout, and leaves no trace."""
    async with open_pool(database, timeout=0.5) as pool:
        store = PostgresStore(pool)
        lease = await begin(store, tenant, "r1")
        async with await psycopg.AsyncConnection.connect(database) as other:
            await other.execute("UPDATE runs SET work = work WHERE tenant = %s", [tenant])
            started = time.monotonic()
            with pytest.raises(StorageUnavailable):
                await store.finish(an_end(lease))
            assert time.monotonic() - started < 2.0
            assert await history(store, tenant, "r1") == ["r1/in"]
            await other.rollback()
        await store.finish(an_end(lease))
        assert await history(store, tenant, "r1") == ["r1/in", "r1/out"]


async def test_dead_connections_of_a_restarted_server_cost_no_request(
    data_dir: Path, postgres_binaries: Path | None, tenant: str
) -> None:
    """P2: a full pool of dead connections, one request or many at once, not one fails."""
    async with AsyncExitStack() as servers:
        server = await servers.enter_async_context(
            embedded_postgres(data_dir, binaries=postgres_binaries)
        )
        await migrate(server.conninfo)
        async with open_pool(server.conninfo, min_size=10, max_size=10) as pool:
            store = PostgresStore(pool)
            await turn(store, tenant, "r1")
            for requests in (1, 40, 1):
                server.kill()
                await servers.aclose()
                server = await servers.enter_async_context(
                    embedded_postgres(data_dir, binaries=postgres_binaries)
                )
                async with asyncio.timeout(20):
                    await asyncio.gather(*(history(store, tenant, "r1") for _ in range(requests)))


async def test_a_database_without_our_tables_says_what_to_do(empty_database: str) -> None:
    """H3: the schema is missing, not the server."""
    async with open_pool(empty_database) as pool:
        with pytest.raises(StorageUnavailable, match="holdfast migrate"):
            await PostgresStore(pool).get("t", "r1")


async def test_a_store_whose_pool_is_closed_is_unavailable(database: str) -> None:
    """P2: also while we stop."""
    async with open_pool(database) as pool:
        store = PostgresStore(pool)
    with pytest.raises(StorageUnavailable):
        await store.get("t", "r1")
