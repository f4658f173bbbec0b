"""What a store acknowledged survives SIGKILL of the server in the middle of it; and nobody deadlocks."""

from __future__ import annotations

import asyncio
import random
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path

import psycopg
import pytest

from engine.errors import Conflict, InvalidRequest, LeaseLost, StorageUnavailable
from engine.ports import Idempotency, Lease
from storage.postgres.embedded import EmbeddedPostgres, embedded_postgres
from storage.postgres.migrate import migrate
from storage.postgres.pool import open_pool
from storage.postgres.store import PostgresStore
from tests.contract.suites import tenant
from tests.support.stored import a_response, an_end, history, some_events

__all__ = ["tenant"]

_WRITERS = 24


@dataclass
class _Known:
    """What was acknowledged, and what was under way when the server died."""

    logged: dict[str, int] = field(default_factory=dict)
    """The last event that is in the log, by response."""
    finished: set[str] = field(default_factory=set)
    unsure: list[Lease] = field(default_factory=list)
    """Those whose finish got no answer."""
    wanted: int = 0
    enough: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when so many are finished."""


async def _write(store: PostgresStore, known: _Known, writer: str) -> None:
    """Make streamed responses until the server is gone."""
    for number in range(10_000):
        name = f"{writer}-{number}"
        new = a_response(f"t{number % 2}", name, streamed=True, events=some_events(0, 0))
        lease = await store.accept(new)
        known.logged[name] = 0
        for event in (1, 2):
            await store.append(lease, some_events(event, event))
            known.logged[name] = event
        known.unsure.append(lease)
        await store.finish(an_end(lease, events=some_events(3, 3)))
        known.unsure.remove(lease)
        known.logged[name] = 3
        known.finished.add(name)
        if len(known.finished) >= known.wanted:
            known.enough.set()


async def _until_killed(store: PostgresStore, server: EmbeddedPostgres, known: _Known) -> None:
    async def write(writer: int) -> None:
        with pytest.raises(StorageUnavailable):
            await _write(store, known, f"w{writer}-{len(known.finished)}")

    async def kill() -> None:
        await known.enough.wait()
        server.kill()

    known.wanted = len(known.finished) + 150
    known.enough.clear()
    await asyncio.gather(kill(), *(write(number) for number in range(_WRITERS)))


async def _check(store: PostgresStore, known: _Known) -> None:
    for name, last in known.logged.items():
        owner = f"t{int(name.rpartition('-')[2]) % 2}"
        log = await store.read_events(owner, name, after=-1, limit=1 << 20)
        assert log is not None
        assert log.batches[: last + 1] == [some_events(n, n) for n in range(last + 1)]
        if name in known.finished:
            assert log.status == "completed"
            assert await history(store, owner, name) == [f"{name}/in", f"{name}/out"]


async def test_nothing_that_was_acknowledged_is_lost(
    data_dir: Path, postgres_binaries: Path | None
) -> None:
    """P1, P6: SIGKILL among grouped writers; accepts, events and ends are there, doubtful ends can be
    repeated, and nothing is there in part."""
    known = _Known()
    async with AsyncExitStack() as servers:
        for _ in range(2):
            server = await servers.enter_async_context(
                embedded_postgres(data_dir, binaries=postgres_binaries)
            )
            await migrate(server.conninfo)
            async with open_pool(server.conninfo) as pool, asyncio.timeout(60):
                store = PostgresStore(pool)
                await _check(store, known)
                for lease in known.unsure:
                    end = an_end(lease, events=some_events(3, 3))
                    await store.finish(end, again=True)
                    name = lease.response_id
                    assert await history(store, lease.tenant, name) == [f"{name}/in", f"{name}/out"]
                known.unsure.clear()
                await _until_killed(store, server, known)
            await servers.aclose()
    assert len(known.finished) >= 300


async def test_a_crowd_on_the_same_few_things_gets_through(
    owned_database: str, tenant: str
) -> None:
    """P2: two workers write, claim, cancel and remove at once, and every error is one of ours. Orders of
    locks differ in rare cases: Postgres breaks such a deadlock, and the pool runs the work again."""
    async with open_pool(owned_database) as one, open_pool(owned_database) as other:
        stores = (PostgresStore(one), PostgresStore(other))
        async with asyncio.timeout(60):
            await asyncio.gather(
                *(_act(stores[number % 2], tenant, random.Random(number)) for number in range(24))
            )
    async with await psycopg.AsyncConnection.connect(owned_database) as connection:
        cursor = await connection.execute(
            "SELECT deadlocks < 10 FROM pg_stat_database WHERE datname = current_database()"
        )
        assert await cursor.fetchone() == (True,)


async def _act(store: PostgresStore, tenant: str, choice: random.Random) -> None:
    leases: list[Lease] = []
    for _ in range(25):
        with suppress(LeaseLost, InvalidRequest, Conflict):
            await _one_act(store, tenant, f"r{choice.randrange(12)}", choice, leases)


async def _one_act(
    store: PostgresStore, tenant: str, name: str, choice: random.Random, leases: list[Lease]
) -> None:
    lease = choice.choice(leases) if leases else Lease(tenant, name, 1)
    match choice.randrange(10):
        case 0 | 1 | 2:
            found = await store.load_context(tenant, f"r{choice.randrange(12)}")
            key = Idempotency(f"k{choice.randrange(4)}", b"") if choice.random() < 0.3 else None
            after = None if found is None else found.end
            new = a_response(tenant, name, after=after, idempotency=key, keep_seconds=0.0)
            leases.append(await store.accept(new))
        case 3 | 4:
            await store.finish(an_end(lease, events=some_events(9, 9)))
        case 5:
            await store.append(lease, some_events(choice.randrange(8), 8))
        case 6:
            await store.delete(tenant, name)
        case 7:
            await store.renew(leases, 30.0)
            await store.ask_cancel(tenant, name, "w/0#1", 30.0)
        case 8:
            await store.release(lease)
            leases += [each.lease for each in await store.claim("w/0#1", 30.0, queued=3, expired=3)]
        case _:
            await store.remove_expired(limit=5)
            await store.abandon(lease)
