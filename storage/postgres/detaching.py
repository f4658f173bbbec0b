"""What takes files out of vector stores, for whatever reason: the file, the store or its tenant goes.

Each is one transaction of a few statements: what is locked first is looked at afterwards, so that it sees
what those wrote for whom it had to wait. It writes small rows alone: chunks are removed later (dropping.py).
A store with very many files is emptied in several transactions, unseen.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from psycopg.types.numeric import Int8

from storage.limits import wanted
from storage.postgres import queries
from storage.postgres.dropping import drop_chunks_of
from storage.postgres.pool import Connection, Pool
from storage.postgres.scope import Statement, rows_of

_SQL = queries.load("detaching.sql")
_STORES = queries.load("vector_stores.sql")

# What of a store is detached in one transaction.
_FILES_AT_ONCE = 2000
_STORES_AT_ONCE = 50


async def detach_files(
    connection: Connection, tenant: str, file_ids: Sequence[str], *, expired: bool
) -> None:
    """Hold files that are about to go, in the transaction that is open, and take them out of all stores.

    Of these ids, those of files whose time has come, or those of files that are there.
    """
    hold = Statement(
        _SQL["lock_going_files"],
        {"tenant": tenant, "file_ids": list(file_ids), "expired": expired},
    )
    [held] = await rows_of(connection, hold)
    if not held:
        return
    values = {"tenant": tenant, "file_ids": [row[0] for row in held]}
    names = ("lock_stores_of_files", "attachments_of_files")
    *_, rows = await rows_of(connection, *(Statement(_SQL[name], values) for name in names))
    await detach(connection, tenant, [row[0] for row in rows])


async def detach(connection: Connection, tenant: str, ids: Sequence[str]) -> None:
    """Remove attachments whose stores are held, in the transaction that is open."""
    if ids:
        values = {"tenant": tenant, "ids": list(ids)}
        statements = (Statement(_SQL[name], values) for name in ("lock_ingestions", "detach"))
        await rows_of(connection, *statements)


async def empty(connection: Connection, tenant: str, store: str) -> bool:
    """Detach some files of a store that is held; True if they were the last, and the store is done with."""
    values: dict[str, Any] = {"tenant": tenant, "id": store}
    some = values | {"limit": Int8(_FILES_AT_ONCE)}
    [rows] = await rows_of(connection, Statement(_STORES["some_attachments"], some))
    await detach(connection, tenant, [row[0] for row in rows])
    names = ("close_batches", "remove_store", "leave_store")
    statements = (Statement(_STORES[name], values) for name in names)
    _, removed, left = await rows_of(connection, *statements)
    return bool(removed or left)


async def empty_ended(pool: Pool, tenant: str, store: str) -> bool:
    """Detach all files of a store whose time has come; False if somebody else is doing that, or did it."""
    values = {"tenant": tenant, "id": store}

    async def work(connection: Connection, _attempt: int) -> bool | None:
        async with connection.transaction():
            [held] = await rows_of(connection, Statement(_STORES["lock_ended_store"], values))
            return await empty(connection, tenant, store) if held else None

    while (done := await pool.run(work)) is False:
        pass
    return done is True


async def remove_stores_of(pool: Pool, tenant: str) -> None:
    """Remove all vector stores of a tenant, and all chunks."""
    tenant = wanted(tenant)
    some = {"tenant": tenant, "limit": Int8(_STORES_AT_ONCE)}

    async def hide(connection: Connection, _attempt: int) -> list[str]:
        async with connection.transaction():
            [rows] = await rows_of(connection, Statement(_STORES["stores_of_tenant"], some))
            ids = [row[0] for row in rows]
            values = {"tenant": tenant, "ids": ids}
            await rows_of(connection, Statement(_STORES["delete_stores"], values))
            return ids

    while ids := await pool.run(hide):
        done = [await empty_ended(pool, tenant, store) for store in ids]
        if not any(done):
            break  # what is left, a sweep has in hand
    await drop_chunks_of(pool, tenant)
