"""What removes responses, with the threads that nothing needs any more (rule P7).

Each removal is one transaction of a few statements: what is locked first is looked at afterwards, so that
it sees what those wrote for whom it had to wait. Threads are locked last and never waited for.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import groupby
from operator import itemgetter

from psycopg.types.numeric import Int4, Int8

from engine.ports import Lease
from storage.limits import wanted
from storage.postgres import queries
from storage.postgres.approvals import freeing
from storage.postgres.detaching import remove_stores_of
from storage.postgres.pool import Connection, Pool
from storage.postgres.scope import Row, Statement, key, rows_of
from storage.postgres.writing import lease_values

_SQL = queries.load("removal.sql")
_GATES = queries.load("gates.sql")
# What is removed of a tenant at once, beside its responses.
_REGISTERED = ("remove_connectors", "remove_prompts", "remove_files")


class Removal:
    """The removing part of `engine.ports.Store`."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def abandon(self, lease: Lease) -> None:
        """Remove a response that the client never heard of; no-op if the lease is lost."""

        async def work(connection: Connection, _attempt: int) -> None:
            async with connection.transaction():
                end = Statement(_SQL["end_run"], lease_values(lease))
                [ended] = await rows_of(connection, end)
                if ended:
                    await rows_of(connection, freeing(lease.tenant, lease.response_id))
                    await _remove(connection, lease.tenant, [lease.response_id])

        await self._pool.run(work)

    async def delete(self, tenant: str, response_id: str) -> bool:
        """Remove the response and its items; True if there was one (rule P7)."""
        tenant, ids = wanted(tenant), [wanted(response_id)]

        async def work(connection: Connection, _attempt: int) -> int:
            async with connection.transaction():
                await rows_of(connection, _named("lock_runs", tenant, ids))
                return await _remove(connection, tenant, ids)

        return await self._pool.run(work) > 0

    async def delete_conversation(self, tenant: str, conversation_id: str) -> bool:
        """Remove a conversation, and its items with the threads that nothing else needs."""
        tenant = wanted(tenant)

        async def work(connection: Connection, _attempt: int) -> int:
            async with connection.transaction():
                return await _remove(connection, tenant, [conversation_id], "delete_conversation")

        return await self._pool.run(work) > 0

    async def remove_expired(self, *, limit: int) -> int:
        """Remove up to `limit` finished responses whose time has come, as `delete` does.

        One transaction for each tenant. What somebody else is removing is left to them.
        """
        count = 0
        for tenant, found in groupby(sorted(await self._expired(limit)), key=itemgetter(0)):
            count += await self._remove_expired_of(
                tenant, [response_id for _, response_id in found]
            )
        return count

    async def remove_tenant(self, tenant: str, *, limit: int) -> int:
        """Remove all that a tenant has registered, and up to `limit` responses, running ones too.

        And as many conversations. Returns how many responses and conversations there were.
        """
        tenant = wanted(tenant)
        await remove_stores_of(self._pool, tenant)

        async def work(connection: Connection, _attempt: int) -> int:
            async with connection.transaction():
                for registered in _REGISTERED:
                    await rows_of(connection, Statement(_SQL[registered], {"tenant": tenant}))
                ids = await _names(connection, "responses_of_tenant", tenant, limit)
                await rows_of(connection, _named("lock_runs", tenant, ids))
                named = await _names(connection, "conversations_of_tenant", tenant, limit)
                count = await _remove(connection, tenant, ids)
                count += await _remove(connection, tenant, named, "delete_conversation")
                await _prune(
                    connection, tenant, await _names(connection, "bare_threads", tenant, limit)
                )
                return count

        return await self._pool.run(work)

    async def _expired(self, limit: int) -> list[Row]:
        async def work(connection: Connection, _attempt: int) -> list[Row]:
            cursor = await connection.execute(_GATES["expired"], {"limit": Int4(limit)})
            return await cursor.fetchall()

        return await self._pool.run(work)

    async def _remove_expired_of(self, tenant: str, ids: list[str]) -> int:
        async def work(connection: Connection, _attempt: int) -> int:
            async with connection.transaction():
                [rows] = await rows_of(connection, _named("lock_expired", tenant, ids))
                return await _remove(connection, tenant, _column(rows))

        return await self._pool.run(work)


async def _remove(
    connection: Connection, tenant: str, ids: list[str], statement: str = "delete"
) -> int:
    """Remove responses, or conversations, in the transaction that is open; returns how many there were."""
    removals = [Statement(_SQL[statement], key(tenant, each)) for each in ids]
    threads = [row[0] for rows in await rows_of(connection, *removals) for row in rows]
    await _prune(connection, tenant, threads)
    return len(threads)


async def _prune(connection: Connection, tenant: str, threads: Iterable[str]) -> None:
    """Remove those threads that have no response and no branch, and then their parents likewise."""
    candidates = sorted(set(threads))
    while candidates:
        [free] = await rows_of(connection, _named("lock_threads", tenant, candidates))
        [rows] = await rows_of(connection, _named("remove_threads", tenant, _column(free)))
        candidates = sorted({parent for parent in _column(rows) if parent is not None})


async def _names(connection: Connection, name: str, tenant: str, limit: int) -> list[str]:
    statement = Statement(_SQL[name], {"tenant": tenant, "limit": Int8(limit)})
    [rows] = await rows_of(connection, statement)
    return _column(rows)


def _named(name: str, tenant: str, ids: list[str]) -> Statement:
    return Statement(_SQL[name], {"tenant": tenant, "ids": ids})


def _column(rows: list[Row]) -> list[str]:
    return [row[0] for row in rows]
