"""Runs in Postgres: who runs what, cancelling, and reading event logs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from psycopg.types.numeric import Int4, Int8

from engine.ports import CancelAsked, Claim, EventBatch, Lease, LoggedEvents, Waiting
from storage.limits import name_of
from storage.postgres import queries
from storage.postgres.pool import Connection, Pool
from storage.postgres.scope import Row, Statement, key, rows_of
from storage.postgres.writing import lease_values

_SQL = queries.load("runs.sql")
_GATES = queries.load("gates.sql")


class Runs:
    """`engine.ports.RunStore` without writing events and without removal.

    What goes over all tenants does so through functions of the database (docs/adr/0007).
    """

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def renew(self, leases: list[Lease], lease_seconds: float) -> list[Lease]:
        """Prolong leases from now on; return those that are lost (taken over, finished or deleted)."""
        if not leases:
            return []
        values = {
            "tenants": [lease.tenant for lease in leases],
            "ids": [lease.response_id for lease in leases],
            "tokens": [Int8(lease.token) for lease in leases],
            "lease_seconds": lease_seconds,
        }
        good = {number for (number,) in await self._pass("renew", values)}
        return [lease for number, lease in enumerate(leases, start=1) if number not in good]

    async def claim(
        self, worker: str, lease_seconds: float, *, queued: int, expired: int
    ) -> list[Claim]:
        """Take up to so many queued runs, and up to so many whose lease ran out.

        What a claim took whose answer was lost comes back when its leases run out.
        """
        values = {
            "worker": worker,
            "lease_seconds": lease_seconds,
            "queued": Int4(queued),
            "expired": Int4(expired),
        }
        return [_claim(row) for row in await self._pass("claim", values)]

    async def inherit(self, worker: str, lease_seconds: float, *, limit: int) -> list[Claim]:
        """Take runs, expired or not, that an earlier life of this very worker left."""
        values = {
            "name": name_of(worker),
            "worker": worker,
            "lease_seconds": lease_seconds,
            "limit": Int4(limit),
        }
        return [_claim(row) for row in await self._pass("inherit", values)]

    async def release(self, lease: Lease) -> None:
        """Put a run back into the queue, for another worker; no-op if the lease is lost."""
        await self._scoped(Statement(_SQL["release"], lease_values(lease)))

    async def ask_cancel(
        self, tenant: str, response_id: str, worker: str, lease_seconds: float
    ) -> CancelAsked | None:
        """Note that a response shall end; None if there is no such response.

        The first statement holds the run, so that what follows sees how it stands with it.
        """
        values = {**key(tenant, response_id), "worker": worker, "lease_seconds": lease_seconds}
        names = ("cancel", "status", "take_queued")
        _, status, taken = await self._scoped(*(Statement(_SQL[name], values) for name in names))
        if not status:
            return None
        return CancelAsked(status[0][0], _claim(taken[0]) if taken else None)

    async def waiting(self) -> Waiting:
        """Return how long the queues are, over all tenants."""
        [row] = await self._pass("waiting", {})
        return Waiting(*row)

    async def cancelled(self, worker: str) -> list[Lease]:
        """Return the leases of this worker whose cancel was asked for."""
        return [Lease(*row) for row in await self._pass("cancelled", {"worker": worker})]

    async def read_events(
        self, tenant: str, response_id: str, *, after: int, limit: int
    ) -> LoggedEvents | None:
        """Return the events numbered above `after` in about `limit` bytes, at least one batch."""
        values = {**key(tenant, response_id), "after": Int8(after), "limit": Int8(limit)}
        [rows] = await self._scoped(Statement(_SQL["read_events"], values))
        if not rows:
            return None
        status, streamed, *_ = rows[0]
        batches = [EventBatch(*row[2:5]) for row in rows if row[2] is not None]
        return LoggedEvents(status, streamed, batches, more=bool(rows[-1][5]))

    async def _scoped(self, *statements: Statement) -> list[list[Row]]:
        async def work(connection: Connection, _attempt: int) -> list[list[Row]]:
            return await rows_of(connection, *statements)

        return await self._pool.run(work)

    async def _pass(self, gate: str, values: Mapping[str, Any]) -> list[Row]:
        """Return the rows of a statement that goes over all tenants."""

        async def work(connection: Connection, _attempt: int) -> list[Row]:
            cursor = connection.cursor(binary=True)
            await cursor.execute(_GATES[gate], values)
            return await cursor.fetchall()

        return await self._pool.run(work)


def _claim(row: Row) -> Claim:
    tenant, response_id, token, attempts, background, streamed, cancel, fresh, head, work = row
    return Claim(
        lease=Lease(tenant, response_id, token),
        attempts=attempts,
        background=background,
        streamed=streamed,
        cancel=cancel,
        fresh=fresh,
        head=head,
        work=work,
    )
