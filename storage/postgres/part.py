"""What the parts of the Postgres store share: statements by name, run for one tenant or for the sweeps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from psycopg.types.numeric import Int8

from engine.ports import EventBatch, Lease, StoredItem
from storage.limits import wanted
from storage.postgres.pool import Connection, Pool, Scope
from storage.postgres.writer import Writer

Row = tuple[Any, ...]
Values = Mapping[str, Any]


class Part:
    """One part of the store, on a pool that all parts share."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._writer = Writer(pool)

    async def _rows(self, statement: bytes, values: Values, scope: Scope) -> list[Row]:
        async def work(connection: Connection, _attempt: int) -> list[Row]:
            cursor = connection.cursor(binary=True)  # bytea as it is, not as hexadecimal text
            await cursor.execute(statement, values)
            return await cursor.fetchall()

        return await self._pool.run(work, scope)


async def value(connection: Connection, statement: bytes, values: Values) -> Any:
    """Run a statement and return the first column of its row; None if it returned no row."""
    cursor = await connection.execute(statement, values)
    row = await cursor.fetchone()
    return None if row is None else row[0]


def of(tenant: str) -> Scope:
    """Return the scope of one tenant."""
    return Scope(wanted(tenant))


def key(tenant: str, response_id: str) -> dict[str, str]:
    """Return the values that name a response."""
    return {"tenant": wanted(tenant), "id": wanted(response_id)}


def lease_values(lease: Lease) -> dict[str, Any]:
    """Return the values that name a lease."""
    return {**key(lease.tenant, lease.response_id), "token": Int8(lease.token)}


def item_columns(items: Sequence[StoredItem]) -> dict[str, Any]:
    """Return items as one array for each column: any number of them is one statement."""
    return {
        "count": Int8(len(items)),
        "item_ids": [item.id for item in items],
        "types": [item.type for item in items],
        "call_ids": [item.call_id for item in items],
        "items": [item.item for item in items],
        "replays": [item.replay for item in items],
    }


def event_columns(batch: EventBatch | None) -> dict[str, Any]:
    """Return a batch of events, or NULLs for none."""
    if batch is None:
        return {"first": None, "last": None, "frames": None}
    return {"first": Int8(batch.first), "last": Int8(batch.last), "frames": batch.frames}
