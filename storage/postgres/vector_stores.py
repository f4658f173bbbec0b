"""Vector stores in Postgres. What is attached to them is in attachments.py, their chunks in ingestions.py."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
from psycopg.types.numeric import Int4, Int8

from engine.ports import (
    FileCounts,
    NewVectorStore,
    Order,
    StoreChange,
    StoredVectorStore,
    VectorStorePage,
)
from storage.limits import check_vector_store, unknown_cursor, wanted
from storage.postgres import queries
from storage.postgres.detaching import empty, empty_ended
from storage.postgres.pool import Connection, Pool
from storage.postgres.scope import Row, Statement, key, rows_of

_SQL = queries.load("vector_stores.sql")
_GATES = queries.load("gates.sql")


class VectorStores:
    """The part of `engine.ports.VectorStoreStore` about stores, over the tables of migration 0008."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def add_vector_store(self, tenant: str, new: NewVectorStore) -> StoredVectorStore:
        """Write a store; raises `InvalidRequest` for texts that cannot be stored."""
        values = columns_of(tenant, new)
        _, rows = await self._stores_do("add_vector_store", "get_vector_store", values=values)
        return stored_of(rows[0])

    async def get_vector_store(self, tenant: str, store: str) -> StoredVectorStore | None:
        """Return the store, or None."""
        [rows] = await self._stores_do("get_vector_store", values=key(tenant, store))
        return stored_of(rows[0]) if rows else None

    async def list_vector_stores(
        self, tenant: str, *, limit: int, after: str | None, before: str | None, order: Order
    ) -> VectorStorePage:
        """Return a page by creation."""
        window = Window(limit, after, before, order)
        values = {"tenant": wanted(tenant), **window.values}
        [rows] = await self._stores_do(f"list_vector_stores_{window.direction}", values=values)
        page, more = window.page_of(rows)
        return VectorStorePage([stored_of(row) for row in page], has_more=more)

    async def update_vector_store(
        self, tenant: str, store: str, change: StoreChange
    ) -> StoredVectorStore | None:
        """Change it; None if there is no such store. The time of what has expired stays."""
        name, metadata, days = change.name, change.metadata, change.expire_days
        if name is not msgspec.UNSET:
            check_vector_store("t", wanted(store), name)
        values = {
            **key(tenant, store),
            "set_name": name is not msgspec.UNSET,
            "name": None if name is msgspec.UNSET else name,
            "set_metadata": metadata is not msgspec.UNSET,
            "metadata": None if metadata is msgspec.UNSET else metadata,
            "set_days": days is not msgspec.UNSET,
            "days": None if days is msgspec.UNSET or days is None else Int8(days),
        }
        _, rows = await self._stores_do("update_vector_store", "get_vector_store", values=values)
        return stored_of(rows[0]) if rows else None

    async def delete_vector_store(self, tenant: str, store: str) -> bool:
        """Remove a store with its attachments, batches and chunks; True if there was one.

        Of a store with many files the rest goes when stores are swept; nobody sees it until then.
        """
        values = key(tenant, store)

        async def work(connection: Connection, _attempt: int) -> bool:
            async with connection.transaction():
                statement = Statement(_SQL["delete_vector_store"], values)
                [rows] = await rows_of(connection, statement)
                if rows:
                    await empty(connection, values["tenant"], store)
                return bool(rows)

        return await self._pool.run(work)

    async def touch_vector_stores(self, tenant: str, stores: Sequence[str]) -> None:
        """Note that they were used: what is written within a minute of the last time is left out."""
        values = {"tenant": wanted(tenant), "ids": [wanted(store) for store in stores]}
        await self._stores_do("touch_vector_stores", values=values)

    async def expire_vector_stores(self, *, limit: int) -> int:
        """Detach all files of stores whose time has come; return of how many stores.

        What was deleted and has files yet is among them.
        """

        async def work(connection: Connection, _attempt: int) -> list[Row]:
            cursor = await connection.execute(_GATES["ended_stores"], {"limit": Int4(limit)})
            return await cursor.fetchall()

        ended = await self._pool.run(work)
        return sum([await empty_ended(self._pool, tenant, store) for tenant, store in ended])

    async def _stores_do(self, *names: str, values: Mapping[str, Any]) -> list[list[Row]]:
        statements = [Statement(_SQL[name], values) for name in names]

        async def work(connection: Connection, _attempt: int) -> list[list[Row]]:
            return await rows_of(connection, *statements)

        return await self._pool.run(work)


class Window(msgspec.Struct, frozen=True):
    """The part of a list between two cursors; its rows start with whether these are known."""

    limit: int
    after: str | None
    before: str | None
    order: Order

    @property
    def backwards(self) -> bool:
        """Whether it is read from its end: what is nearest to `before`."""
        return self.before is not None and self.after is None

    @property
    def direction(self) -> Order:
        """In which order the rows are read."""
        return self.order if not self.backwards else "desc" if self.order == "asc" else "asc"

    @property
    def values(self) -> dict[str, Any]:
        """What the statement is given; one more than the limit, which tells whether there is more."""
        cursors = [None if each is None else wanted(each) for each in (self.after, self.before)]
        above, below = cursors if self.order == "asc" else cursors[::-1]
        return {"above": above, "below": below, "limit": Int8(self.limit + 1)}

    def page_of(self, rows: list[Row]) -> tuple[list[Row], bool]:
        """Return the rows of a page, and if there are more; raises `InvalidRequest` for unknown cursors."""
        above, below, *_ = rows[0]
        known = (above, below) if self.order == "asc" else (below, above)
        for cursor, is_known, param in zip(
            (self.after, self.before), known, ("after", "before"), strict=True
        ):
            if cursor is not None and not is_known:
                raise unknown_cursor(cursor, param)
        found = [row[2:] for row in rows if row[2] is not None]
        page = found[: self.limit]
        return page[::-1] if self.backwards else page, len(found) > self.limit


def columns_of(tenant: str, new: NewVectorStore) -> dict[str, Any]:
    """Return the values that a store is written with; raises `InvalidRequest` for what cannot be stored."""
    check_vector_store(tenant, new.id, new.name, new.description)
    return {
        "tenant": tenant,
        "id": new.id,
        "name": new.name,
        "description": new.description,
        "metadata": new.metadata,
        "days": None if new.expire_days is None else Int8(new.expire_days),
    }


def stored_of(row: Row) -> StoredVectorStore:
    """Return the store of a row of `get_vector_store`."""
    names = StoredVectorStore.__struct_fields__
    *fields, in_progress, completed, cancelled, failed = row
    counts = FileCounts(
        in_progress=in_progress, completed=completed, cancelled=cancelled, failed=failed
    )
    return StoredVectorStore(**dict(zip(names, [*fields, counts], strict=True)))
