"""Runs, leases, event logs and retention in Postgres. Times are the server's.

What belongs to no tenant (renewing, claiming, sweeping) runs in the scope of the sweeps (ADR 7).
"""

from __future__ import annotations

from psycopg.types.numeric import Int8

from engine.ports import CancelAsked, Claim, EventBatch, Lease, LoggedEvents
from storage.limits import lease_lost, wanted
from storage.postgres import queries
from storage.postgres.part import Row, event_columns, key, lease_values, of, value
from storage.postgres.pool import SWEEPS, Connection
from storage.postgres.responses import PostgresResponses

_SQL = queries.load("runs.sql")
_SWEEPS = queries.load("sweeps.sql")


class PostgresRuns(PostgresResponses):
    """`engine.ports.RunStore` over the same tables."""

    # -- leases -----------------------------------------------------------------------------------

    async def renew(self, leases: list[Lease], lease_seconds: float) -> list[Lease]:
        """Prolong leases; return those that are lost."""
        values = {
            "tenants": [lease.tenant for lease in leases],
            "ids": [lease.response_id for lease in leases],
            "tokens": [Int8(lease.token) for lease in leases],
            "lease_seconds": lease_seconds,
        }
        rows = await self._rows(_SWEEPS["renew"], values, SWEEPS) if leases else []
        return [Lease(*row) for row in rows]

    async def claim(
        self, worker: str, lease_seconds: float, *, queued: int, expired: int
    ) -> list[Claim]:
        """Take queued runs, fairly among tenants, and runs whose lease ran out."""
        return [
            *await self._claim("claim_queued", worker, lease_seconds, queued),
            *await self._claim("claim_expired", worker, lease_seconds, expired),
        ]

    async def inherit(self, worker: str, lease_seconds: float, *, limit: int) -> list[Claim]:
        """Take runs that an earlier life of this worker left."""
        return await self._claim("inherit", worker, lease_seconds, limit)

    async def release(self, lease: Lease) -> None:
        """Put a run back into the queue; no-op if the lease is lost."""
        await self._rows(_SQL["release"], lease_values(lease), of(lease.tenant))

    async def _claim(
        self, statement: str, worker: str, lease_seconds: float, limit: int
    ) -> list[Claim]:
        values = {
            "worker": worker,
            "place": worker.partition("#")[0] + "#",
            "lease_seconds": lease_seconds,
            "limit": Int8(limit),
        }
        rows = await self._rows(_SWEEPS[statement], values, SWEEPS) if limit > 0 else []
        return [_claimed(row) for row in rows]

    # -- cancelling -------------------------------------------------------------------------------

    async def ask_cancel(
        self, tenant: str, response_id: str, worker: str, lease_seconds: float
    ) -> CancelAsked | None:
        """Note that a response shall end; None if there is no such response."""
        values = {**key(tenant, response_id), "worker": worker, "lease_seconds": lease_seconds}
        rows = await self._rows(_SQL["ask_cancel"], values, of(tenant))
        if not rows:
            return None
        status, taken, token, attempts, background, streamed, head, work = rows[0]
        if not taken:
            return CancelAsked(status)
        lease = Lease(tenant, response_id, token)
        return CancelAsked(
            status, Claim(lease, attempts, background, streamed, True, True, head, work)
        )

    async def cancelled(self, worker: str) -> list[Lease]:
        """Return the leases of this worker whose cancel was asked for."""
        rows = await self._rows(_SWEEPS["cancelled"], {"worker": worker}, SWEEPS)
        return [Lease(*row) for row in rows]

    # -- event logs -------------------------------------------------------------------------------

    async def append(self, lease: Lease, batch: EventBatch) -> None:
        """Add events to the log; raises `LeaseLost`."""
        values = {**lease_values(lease), **event_columns(batch)}
        written = await self._writer.write(
            of(lease.tenant), _SQL["append"], values, len(batch.frames)
        )
        if written.row is None:
            raise lease_lost(lease)

    async def read_events(
        self, tenant: str, response_id: str, *, after: int, limit: int
    ) -> LoggedEvents | None:
        """Return the events numbered above `after`, about `limit` bytes; None if there is none such."""
        values = {**key(tenant, response_id), "after": Int8(after), "limit": Int8(limit)}
        rows = await self._rows(_SQL["read_events"], values, of(tenant))
        if not rows:
            return None
        status, streamed, more, *_ = rows[0]
        batches = [EventBatch(*row[3:]) for row in rows if row[3] is not None]
        return LoggedEvents(status, streamed, batches, more)

    # -- retention --------------------------------------------------------------------------------

    async def remove_expired(self, *, limit: int) -> int:
        """Remove finished responses whose time has come: one short transaction for each."""
        rows = await self._rows(_SWEEPS["expired"], {"limit": Int8(limit)}, SWEEPS)
        removed = 0
        for tenant, response_id in rows:
            removed += await self.delete(tenant, response_id)
        return removed

    async def remove_tenant(self, tenant: str, *, limit: int) -> int:
        """Remove responses of a tenant, running ones too; with the last, whatever else it has."""
        values = {"tenant": wanted(tenant), "limit": Int8(limit)}
        rows = await self._rows(_SQL["tenant_responses"], values, of(tenant))
        removed = 0
        for (response_id,) in rows:
            removed += await self.delete(tenant, response_id)
        if len(rows) < limit:

            async def work(connection: Connection, _attempt: int) -> None:
                await value(connection, _SQL["empty_tenant"], values)

            await self._pool.run(work, of(tenant))
        return removed


def _claimed(row: Row) -> Claim:
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
