"""The queue of ingestions, chunks, and what the index is told, in Postgres."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from psycopg.types.numeric import Int4, Int8

from engine.ports import (
    ChunkCount,
    Chunking,
    IngestionClaim,
    IngestionErrorCode,
    IngestionLease,
    Removal,
    StoredChunk,
)
from storage.limits import ingestion_lost, wanted
from storage.postgres import queries
from storage.postgres.dropping import drop_chunks
from storage.postgres.pool import Connection, Pool
from storage.postgres.scope import Row, Statement, key, rows_of

_SQL = queries.load("ingestions.sql")
_GATES = queries.load("gates.sql")


class Ingestions:
    """The part of `engine.ports.VectorStoreStore` that ingestion and the index need.

    What goes over all tenants does so through functions of the database (docs/adr/0007).
    """

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def claim_ingestions(
        self, worker: str, lease_seconds: float, *, limit: int
    ) -> list[IngestionClaim]:
        """Take what was left, then what waits, of the tenant that has the fewest at work first.

        What a claim took whose answer was lost comes back when its leases run out.
        """
        values = {"worker": worker, "lease_seconds": lease_seconds, "limit": Int4(limit)}
        return [_claim(row) for row in await self._over_tenants("claim_ingestions", values)]

    async def renew_ingestions(
        self, leases: Sequence[IngestionLease], lease_seconds: float
    ) -> list[IngestionLease]:
        """Prolong leases; return those that are lost: taken over, cancelled, detached."""
        if not leases:
            return []
        values = {
            "tenants": [lease.tenant for lease in leases],
            "attachments": [lease.attachment for lease in leases],
            "tokens": [Int8(lease.token) for lease in leases],
            "lease_seconds": lease_seconds,
        }
        good = {number for (number,) in await self._over_tenants("renew_ingestions", values)}
        return [lease for number, lease in enumerate(leases, start=1) if number not in good]

    async def store_chunks(
        self, lease: IngestionLease, first: int, chunks: Sequence[str], *, last: bool
    ) -> None:
        """Write chunks from the number `first` on, in place of all from there; raises `LeaseLost`."""
        values = {
            **_leased(lease),
            "first": Int8(first),
            "whole": last,
            "texts": [chunk.encode() for chunk in chunks],
        }
        names = ("hold_ingestion", "drop_chunks", "add_chunks")
        held, *_ = await self._ingestions_do(*names, values=values)
        if not held:
            raise ingestion_lost(lease)

    async def chunk_texts(
        self, tenant: str, attachment: str, *, after: int, limit: int
    ) -> list[str]:
        """Return the chunks numbered above `after` (-1: from the first), in order."""
        values = {**key(tenant, attachment), "past": Int8(after), "limit": Int8(limit)}
        [rows] = await self._ingestions_do("chunk_texts", values=values)
        return [row[0].decode() for row in rows]

    async def chunks(
        self, tenant: str, attachment: str, *, model: str, after: int, limit: int
    ) -> list[StoredChunk]:
        """Return chunks numbered above `after` with their vectors by `model`."""
        values = {
            **key(tenant, attachment),
            "model": model,
            "past": Int8(after),
            "limit": Int8(limit),
        }
        [rows] = await self._ingestions_do("chunks", values=values)
        return [
            StoredChunk(number=number, text=text.decode(), vector=vector)
            for number, text, vector in rows
        ]

    async def chunk_count(self, tenant: str, attachment: str, *, model: str) -> ChunkCount:
        """Return how many chunks there are."""
        values = {**key(tenant, attachment), "model": model}
        [rows] = await self._ingestions_do("chunk_count", values=values)
        return ChunkCount(*rows[0])

    async def store_vectors(
        self, tenant: str, attachment: str, *, model: str, vectors: Sequence[tuple[int, bytes]]
    ) -> None:
        """Keep the vectors of chunks, by number, in place of what they had; of chunks that are gone none."""
        if not vectors:
            return
        numbers = [number for number, _ in vectors]
        values = {
            **key(tenant, attachment),
            "model": model,
            "numbers": [Int8(number) for number in numbers],
            "vectors": [vector for _, vector in vectors],
            "lowest": Int8(min(numbers)),
            "highest": Int8(max(numbers)),
        }
        await self._ingestions_do("store_vectors", values=values)

    async def finish_ingestion(
        self, lease: IngestionLease, error: tuple[IngestionErrorCode, str] | None
    ) -> None:
        """End it as completed, or as failed with what is wrong; raises `LeaseLost`."""
        values = {
            **_leased(lease),
            "error_code": None if error is None else error[0],
            "error": None if error is None else error[1].encode(),
        }
        names = ("lock_store_of", "finish_ingestion", "finished")
        *_, finished = await self._ingestions_do(*names, values=values)
        if not finished:
            raise ingestion_lost(lease)

    async def put_back_ingestion(
        self, lease: IngestionLease, *, seconds: float, counts: bool = False
    ) -> None:
        """Put it back into the queue, to be taken after so many seconds; no-op if the lease is lost."""
        values = {**_leased(lease), "seconds": float(seconds), "counts": counts}
        await self._ingestions_do("put_back", values=values)

    async def removals(self, *, limit: int) -> list[Removal]:
        """Return attachments that are gone, of all tenants, and that nobody puts into the index any more."""
        rows = await self._over_tenants("removals", {"limit": Int4(limit)})
        return [Removal(*row) for row in rows]

    async def forget_removals(self, tenant: str, attachments: Sequence[str]) -> None:
        """Forget those that were removed from the index."""
        values = {"tenant": wanted(tenant), "ids": [wanted(each) for each in attachments]}
        await self._ingestions_do("forget_removals", values=values)

    async def drop_chunks(self) -> bool:
        """Remove some chunks of attachments that are gone; False where there is nothing to do."""
        return await drop_chunks(self._pool)

    async def completed_attachments(
        self, *, after: tuple[str, str] | None, limit: int
    ) -> list[Removal]:
        """Return completed attachments of all tenants by tenant and attachment, those behind `after`."""
        tenant, attachment = after or ("", "")
        values = {"tenant": tenant, "attachment": attachment, "limit": Int4(limit)}
        return [Removal(*row) for row in await self._over_tenants("completed_attachments", values)]

    async def _over_tenants(self, gate: str, values: Mapping[str, Any]) -> list[Row]:
        async def work(connection: Connection, _attempt: int) -> list[Row]:
            cursor = connection.cursor(binary=True)
            await cursor.execute(_GATES[gate], values)
            return await cursor.fetchall()

        return await self._pool.run(work)

    async def _ingestions_do(self, *names: str, values: Mapping[str, Any]) -> list[list[Row]]:
        statements = [Statement(_SQL[name], values) for name in names]

        async def work(connection: Connection, _attempt: int) -> list[list[Row]]:
            return await rows_of(connection, *statements)

        return await self._pool.run(work)


def _leased(lease: IngestionLease) -> dict[str, Any]:
    return {**key(lease.tenant, lease.attachment), "token": Int8(lease.token)}


def _claim(row: Row) -> IngestionClaim:
    tenant, attachment, token, store, file_id, size, overlap, attempts, chunked = row
    return IngestionClaim(
        lease=IngestionLease(tenant, attachment, token),
        store=store,
        file_id=file_id,
        chunking=Chunking(size, overlap),
        attempts=attempts,
        chunked=chunked,
    )
