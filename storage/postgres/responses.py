"""Responses in Postgres: each operation is one statement, one round trip and one transaction.

Keeps promise 1 of the design: what a method acknowledged by returning is committed.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from typing import Any

import psycopg
from psycopg.types.numeric import Int8

from engine.errors import LeaseLost
from engine.ports import (
    Context,
    FinishedResponse,
    Lease,
    NewResponse,
    Order,
    Page,
    ReplayItem,
    ResponsePage,
    StoredItem,
    StoredResponse,
    ThreadPoint,
)
from storage.limits import (
    check_finished,
    check_new,
    duplicate_response,
    unknown_cursor,
    wanted,
)
from storage.postgres import queries
from storage.postgres.pool import Connection, Pool

_SQL = queries.load("responses.sql")

_Row = tuple[Any, ...]


class PostgresResponseStore:
    """`engine.ports.ResponseStore` over the tables of `sql/migrations`.

    Beside `StorageUnavailable`, writes raise `InvalidRequest` for names that cannot be stored and
    `Conflict` for a response id that exists.
    """

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def load_context(self, tenant: str, response_id: str) -> Context | None:
        """Return the history that ends with the response; None if the tenant has no such id."""
        rows = await self._rows("load_context", _key(tenant, response_id))
        if not rows:
            return None
        status, thread_id, position, root_id, *_ = rows[0]
        return Context(
            status=status,
            end=ThreadPoint(thread_id, position),
            root_id=root_id,
            items=[ReplayItem(*row[4:]) for row in rows if row[4] is not None],
        )

    async def accept(self, new: NewResponse) -> Lease:
        """Write the response row and its input items, and take the lease (one transaction)."""
        check_new(new)
        values = {
            "tenant": new.tenant,
            "id": new.id,
            "model": new.model,
            "previous": new.previous_response_id,
            "head": new.head,
            "worker": new.worker,
            "lease_seconds": new.lease_seconds,
            "new_thread": f"thr_{secrets.token_hex(12)}",
            "after_thread": None if new.after is None else new.after.thread_id,
            "after_position": None if new.after is None else Int8(new.after.position),
            **_columns(new.input),
        }

        async def work(connection: Connection, attempt: int) -> int:
            token: int | None = None
            try:
                token = await _value(connection, "accept", values)
            except psycopg.errors.UniqueViolation:
                if attempt:  # the row may be our own, from a connection that was lost
                    token = await _value(connection, "accepted_before", values)
            if token is None:
                raise duplicate_response(new.id)
            return token

        return Lease(new.tenant, new.id, await self._pool.run(work))

    async def abandon(self, lease: Lease) -> None:
        """Remove a response that the client never heard of; no-op if the lease is lost."""
        values = _lease_values(lease)

        async def work(connection: Connection, _attempt: int) -> None:
            await connection.execute(_SQL["abandon"], values)

        await self._pool.run(work)

    async def finish(self, finished: FinishedResponse, *, again: bool = False) -> None:
        """Write output, status and head in one transaction; `LeaseLost` for a stale token."""
        check_finished(finished)
        lease = finished.lease
        values = {
            **_lease_values(lease),
            "status": finished.status,
            "head": finished.head,
            **_columns(finished.output),
        }

        async def work(connection: Connection, attempt: int) -> bool:
            if await _value(connection, "finish", values) is not None:
                return True
            # After a lost answer it may be finished because we did.
            repeated = again or attempt > 0
            return repeated and await _value(connection, "finished_before", values) is not None

        if not await self._pool.run(work):
            raise LeaseLost(f"The lease of response '{lease.response_id}' is lost.")

    async def get(self, tenant: str, response_id: str) -> StoredResponse | None:
        """Return the response, or None."""
        rows = await self._rows("get", _key(tenant, response_id))
        return StoredResponse(*rows[0]) if rows else None

    async def delete(self, tenant: str, response_id: str) -> bool:
        """Remove the response and its items; True if there was one (rule P7).

        Two statements: the second sees the output of a `finish` for which the first had to wait.
        """
        values = _key(tenant, response_id)

        async def work(connection: Connection, _attempt: int) -> bool:
            async with connection.transaction():
                await connection.execute(_SQL["lock_response"], values)
                return await _value(connection, "delete", values) is not None

        return await self._pool.run(work)

    async def list_responses(
        self, tenant: str, *, limit: int, after: str | None, order: Order, model: str | None
    ) -> ResponsePage:
        """Return a page by creation; `InvalidRequest` (param `after`) for an unknown cursor."""
        values = {
            "tenant": wanted(tenant),
            "model": None if model is None else wanted(model),
            **_window(limit, after),
        }
        rows = await self._page(f"list_responses_{order}", values, after) or []
        return ResponsePage(
            responses=[StoredResponse(*row) for row in rows[:limit]], has_more=len(rows) > limit
        )

    async def list_input_items(
        self, tenant: str, response_id: str, *, limit: int, after: str | None, order: Order
    ) -> Page | None:
        """Return a page of the response's own input, or None if there is no such response.

        Raises `InvalidRequest` (param `after`) for an unknown cursor.
        """
        values = {**_key(tenant, response_id), **_window(limit, after)}
        rows = await self._page(f"list_input_items_{order}", values, after)
        if rows is None:
            return None
        page = rows[:limit]
        return Page(
            items=[item for _, item in page],
            ids=[item_id for item_id, _ in page],
            has_more=len(rows) > limit,
        )

    async def find_items(self, tenant: str, item_ids: list[str]) -> dict[str, StoredItem]:
        """Return the newest stored item for each id that the tenant has (for `item_reference`)."""
        values = {"tenant": wanted(tenant), "item_ids": [wanted(item_id) for item_id in item_ids]}
        rows = await self._rows("find_items", values) if item_ids else []
        return {row[0]: StoredItem(*row) for row in rows}

    async def _rows(self, name: str, values: Mapping[str, Any]) -> list[_Row]:
        async def work(connection: Connection, _attempt: int) -> list[_Row]:
            cursor = connection.cursor(binary=True)  # bytea as it is, not as hexadecimal text
            await cursor.execute(_SQL[name], values)
            return await cursor.fetchall()

        return await self._pool.run(work)

    async def _page(
        self, name: str, values: Mapping[str, Any], after: str | None
    ) -> list[_Row] | None:
        """Return the rows of a page without the column that says whether `after` is known."""
        rows = await self._rows(name, values)
        if not rows:
            return None
        if after is not None and not rows[0][0]:
            raise unknown_cursor(after)
        return [row[1:] for row in rows if row[1] is not None]


async def _value(connection: Connection, name: str, values: Mapping[str, Any]) -> Any:
    """Run a statement and return the first column of its row; None if it returned no row."""
    cursor = await connection.execute(_SQL[name], values)
    row = await cursor.fetchone()
    return None if row is None else row[0]


def _key(tenant: str, response_id: str) -> dict[str, str]:
    return {"tenant": wanted(tenant), "id": wanted(response_id)}


def _window(limit: int, after: str | None) -> dict[str, Any]:
    """Ask for one more than the limit: it tells whether there is more."""
    return {"limit": Int8(limit + 1), "after": None if after is None else wanted(after)}


def _lease_values(lease: Lease) -> dict[str, Any]:
    return {**_key(lease.tenant, lease.response_id), "token": Int8(lease.token)}


def _columns(items: Sequence[StoredItem]) -> dict[str, Any]:
    """Return items as one array for each column: any number of them is one statement."""
    return {
        "count": Int8(len(items)),
        "item_ids": [item.id for item in items],
        "types": [item.type for item in items],
        "call_ids": [item.call_id for item in items],
        "items": [item.item for item in items],
        "replays": [item.replay for item in items],
    }
