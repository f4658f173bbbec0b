"""Responses in Postgres: each operation is one round trip and one transaction, or a part of one.

Keeps promise 1 of the design: what a method acknowledged by returning is committed.
"""

from __future__ import annotations

import secrets
from typing import Any

import psycopg
from psycopg.types.numeric import Int8

from engine.errors import AlreadyAccepted, Conflict
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
    lease_lost,
    unknown_cursor,
    wanted,
)
from storage.postgres import queries
from storage.postgres.part import (
    Part,
    Row,
    Values,
    event_columns,
    item_columns,
    key,
    lease_values,
    of,
    value,
)
from storage.postgres.pool import Connection, Scope

_SQL = queries.load("responses.sql")


class PostgresResponses(Part):
    """`engine.ports.ResponseStore` over the tables of `sql/migrations`.

    Beside `StorageUnavailable`, writes raise `InvalidRequest` for names that cannot be stored and
    `Conflict` for a response id that exists.
    """

    async def load_context(self, tenant: str, response_id: str) -> Context | None:
        """Return the history that ends with the response; None if the tenant has no such id."""
        rows = await self._rows(_SQL["load_context"], key(tenant, response_id), of(tenant))
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
        """Write response, input, run and first events, and take the lease (one transaction).

        Not grouped with others: the first event of its stream waits for it, and nothing else does.
        """
        check_new(new)
        values = _new_values(new)

        async def work(connection: Connection, attempt: int) -> int:
            token: int | None = None
            try:
                token = await value(connection, _SQL["accept"], values)
            except psycopg.errors.UniqueViolation:
                if not attempt:
                    raise duplicate_response(new.id) from None
            if token is None and attempt:  # the row may be our own, from a connection that was lost
                token = await value(connection, _SQL["accepted_before"], values)
            if token is None:
                raise await _refusal(connection, new, values)
            return token

        return Lease(new.tenant, new.id, await self._pool.run(work, of(new.tenant)))

    async def abandon(self, lease: Lease) -> None:
        """Remove a response that the client never heard of; no-op if the lease is lost."""
        values = lease_values(lease)

        async def work(connection: Connection, _attempt: int) -> None:
            async with connection.transaction():
                thread = await value(connection, _SQL["abandon"], values)
                await drop_empty_threads(connection, lease.tenant, thread)

        await self._pool.run(work, of(lease.tenant))

    async def finish(self, finished: FinishedResponse, *, again: bool = False) -> None:
        """Write output, status, head and the log's tail; `LeaseLost` for a stale token."""
        check_finished(finished)
        lease = finished.lease
        values = {
            **lease_values(lease),
            "status": finished.status,
            "head": finished.head,
            **item_columns(finished.output),
            **event_columns(finished.events),
        }
        size = len(finished.head) + sum(len(item.item) for item in finished.output)
        written = await self._writer.write(of(lease.tenant), _SQL["finish"], values, size)
        if written.row is not None:
            return
        # After a lost answer it may be finished because we did.
        if again or written.repeated:
            before = await self._rows(_SQL["finished_before"], values, of(lease.tenant))
            if before:
                return
        raise lease_lost(lease)

    async def get(self, tenant: str, response_id: str) -> StoredResponse | None:
        """Return the response, or None."""
        rows = await self._rows(_SQL["get"], key(tenant, response_id), of(tenant))
        return StoredResponse(*rows[0]) if rows else None

    async def delete(self, tenant: str, response_id: str) -> bool:
        """Remove the response and its items; True if there was one (rule P7).

        The locks come first: what follows sees the output of a `finish` for which they had to wait.
        """
        values = key(tenant, response_id)

        async def work(connection: Connection, _attempt: int) -> bool:
            async with connection.transaction():
                await connection.execute(_SQL["lock_run"], values)
                await connection.execute(_SQL["lock_response"], values)
                thread = await value(connection, _SQL["delete"], values)
                await drop_empty_threads(connection, tenant, thread)
                return thread is not None

        return await self._pool.run(work, of(tenant))

    async def list_responses(
        self, tenant: str, *, limit: int, after: str | None, order: Order, model: str | None
    ) -> ResponsePage:
        """Return a page by creation; `InvalidRequest` (param `after`) for an unknown cursor."""
        values = {
            "tenant": wanted(tenant),
            "model": None if model is None else wanted(model),
            **_window(limit, after),
        }
        rows = await self._page(f"list_responses_{order}", values, of(tenant), after) or []
        return ResponsePage(
            responses=[StoredResponse(*row) for row in rows[:limit]], has_more=len(rows) > limit
        )

    async def list_input_items(
        self, tenant: str, response_id: str, *, limit: int, after: str | None, order: Order
    ) -> Page | None:
        """Return a page of the response's own input, or None if there is no such response.

        Raises `InvalidRequest` (param `after`) for an unknown cursor.
        """
        values = {**key(tenant, response_id), **_window(limit, after)}
        rows = await self._page(f"list_input_items_{order}", values, of(tenant), after)
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
        rows = await self._rows(_SQL["find_items"], values, of(tenant)) if item_ids else []
        return {row[0]: StoredItem(*row) for row in rows}

    async def _page(
        self, name: str, values: Values, scope: Scope, after: str | None
    ) -> list[Row] | None:
        """Return the rows of a page without the column that says whether `after` is known."""
        rows = await self._rows(_SQL[name], values, scope)
        if not rows:
            return None
        if after is not None and not rows[0][0]:
            raise unknown_cursor(after)
        return [row[1:] for row in rows if row[1] is not None]


async def drop_empty_threads(connection: Connection, tenant: str, thread: str | None) -> None:
    """Remove a thread in which nothing is left, and so its ancestors."""
    while thread is not None:
        values = {"tenant": wanted(tenant), "thread": thread}
        thread = await value(connection, _SQL["drop_empty_thread"], values)


async def _refusal(connection: Connection, new: NewResponse, values: Values) -> Conflict:
    """Return why nothing was accepted: the key is in use, or was a moment ago."""
    cursor = connection.cursor(binary=True)
    await cursor.execute(_SQL["find_key"], values)
    row = await cursor.fetchone()
    return duplicate_response(new.id) if row is None else AlreadyAccepted(*row)


def _new_values(new: NewResponse) -> dict[str, Any]:
    idempotency = new.idempotency
    return {
        "tenant": new.tenant,
        "id": new.id,
        "model": new.model,
        "status": "queued" if new.queued else "in_progress",
        "previous": new.previous_response_id,
        "head": new.head,
        "worker": None if new.queued else new.worker,
        "lease_seconds": None if new.queued else new.lease_seconds,
        "token": Int8(0 if new.queued else 1),
        "background": new.background,
        "streamed": new.streamed,
        "work": new.work,
        "key": None if idempotency is None else idempotency.key,
        "digest": None if idempotency is None else idempotency.digest,
        "keep_seconds": new.keep_seconds,
        "new_thread": f"thr_{secrets.token_hex(12)}",
        "after_thread": None if new.after is None else new.after.thread_id,
        "after_position": None if new.after is None else Int8(new.after.position),
        **item_columns(new.input),
        **event_columns(new.events),
    }


def _window(limit: int, after: str | None) -> dict[str, Any]:
    """Ask for one more than the limit: it tells whether there is more."""
    return {"limit": Int8(limit + 1), "after": None if after is None else wanted(after)}
