"""Chunks of attachments that are gone: removed a lot at a time, so that no transaction is a long one.

Whoever takes an attachment away only notes it: a file may have 100,000 chunks, a store as many files.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import groupby
from operator import itemgetter

from psycopg.types.numeric import Int4, Int8

from storage.postgres import queries
from storage.postgres.pool import Connection, Pool
from storage.postgres.scope import Row, Statement, rows_of

_SQL = queries.load("detaching.sql")
_GATES = queries.load("gates.sql")

# Of how many attachments chunks are removed in one transaction, and about how many chunks: with vectors of
# 1,536 numbers some 8 MB, with the longest of both some 50 MB.
_ATTACHMENTS_AT_ONCE = 100
_CHUNKS_AT_ONCE = 1000


async def drop_chunks(pool: Pool) -> bool:
    """Remove a lot of chunks of each tenant among those who have waited longest.

    False where nothing is left to be removed, or somebody else is at work on it.
    """

    async def look(connection: Connection, _attempt: int) -> list[Row]:
        values = {"limit": Int4(_ATTACHMENTS_AT_ONCE)}
        cursor = await connection.execute(_GATES["dropped_chunks"], values)
        return await cursor.fetchall()

    found = sorted(await pool.run(look))
    done = [
        await _drop_lot(pool, tenant, [row[1] for row in rows])
        for tenant, rows in groupby(found, key=itemgetter(0))
    ]
    return any(done)


async def drop_chunks_of(pool: Pool, tenant: str) -> None:
    """Remove all chunks of a tenant that are to be removed, and wait for others who are doing it."""
    values = {"tenant": tenant, "limit": Int8(_ATTACHMENTS_AT_ONCE)}

    async def look(connection: Connection, _attempt: int) -> list[Row]:
        [rows] = await rows_of(connection, Statement(_SQL["dropped_of_tenant"], values))
        return rows

    while rows := await pool.run(look):
        await _drop_lot(pool, tenant, _column(rows), hold="wait_for_dropped")


async def _drop_lot(
    pool: Pool, tenant: str, ids: Sequence[str], *, hold: str = "hold_dropped"
) -> bool:
    """Remove some chunks of these attachments, in one transaction; True if anything was done."""

    async def work(connection: Connection, _attempt: int) -> bool:
        async with connection.transaction():
            values = {"tenant": tenant, "ids": list(ids)}
            [held] = await rows_of(connection, Statement(_SQL[hold], values))
            bare = await _drop(connection, tenant, _column(held))
            values = {"tenant": tenant, "ids": bare}
            await rows_of(connection, Statement(_SQL["forget_dropped"], values))
            return bool(held)

    return await pool.run(work)


async def _drop(connection: Connection, tenant: str, ids: Iterable[str]) -> list[str]:
    """Remove chunks until there are enough; return the attachments that have none any more."""
    bare: list[str] = []
    room = _CHUNKS_AT_ONCE
    for each in ids:
        values = {"tenant": tenant, "id": each, "limit": Int8(room)}
        [rows] = await rows_of(connection, Statement(_SQL["drop_lot"], values))
        room -= rows[0][0]
        if room <= 0:
            return bare
        bare.append(each)
    return bare


def _column(rows: Iterable[Row]) -> list[str]:
    return [row[0] for row in rows]
