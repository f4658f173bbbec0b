"""Files, uploads and blobs in Postgres: each operation is one round trip, and can be repeated."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import groupby
from operator import itemgetter
from typing import Any

from psycopg.types.numeric import Int4, Int8

from engine.ports import (
    Blob,
    Dropped,
    FilePage,
    NewFile,
    NewUpload,
    Order,
    StoredFile,
    StoredUpload,
)
from storage.limits import check_file, unknown_cursor, wanted
from storage.postgres import queries
from storage.postgres.detaching import detach_files
from storage.postgres.pool import Connection, Pool
from storage.postgres.scope import Row, Statement, key, rows_of

_SQL = queries.load("files.sql")
_GATES = queries.load("gates.sql")


class Files:
    """`engine.ports.FileStore` over the tables of migration 0007."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def reserve_blob(self, tenant: str, key: str, seconds: int) -> None:
        """Announce a blob; it is dropped unless a file or an upload takes it within so many seconds."""
        values = {"tenant": tenant, "key": key, "seconds": float(seconds)}
        await self._files_do("reserve_blob", values=values)

    async def drop_blob(self, tenant: str, key: str) -> None:
        """Drop an announced blob, unless a file or an upload has taken it."""
        await self._files_do("drop_blob", values={"tenant": tenant, "key": key})

    async def add_file(self, tenant: str, new: NewFile, blob: Blob) -> StoredFile | None:
        """Write a file whose bytes are an announced blob; None if that was dropped."""
        check_file(tenant, new.purpose, new.filename)
        values = {
            **_of_blob(tenant, new.id, blob),
            "purpose": new.purpose,
            "filename": new.filename,
            "keep": new.keep_seconds,
        }
        _, rows = await self._files_do("add_file", "get_file", values=values)
        return _file(rows[0]) if rows else None

    async def get_file(self, tenant: str, file_id: str) -> StoredFile | None:
        """Return the file, or None."""
        [rows] = await self._files_do("get_file", values=key(tenant, file_id))
        return _file(rows[0]) if rows else None

    async def file_blobs(self, tenant: str, file_id: str) -> list[Blob]:
        """Return the blobs of a file in order; none if there is no such file."""
        [rows] = await self._files_do("file_blobs", values=key(tenant, file_id))
        return [Blob(*row) for row in rows]

    async def list_files(
        self, tenant: str, *, limit: int, after: str | None, order: Order, purpose: str | None
    ) -> FilePage:
        """Return a page by creation; raises `InvalidRequest` (param `after`) for an unknown cursor."""
        values = {
            "tenant": wanted(tenant),
            "limit": Int8(limit + 1),
            "after": None if after is None else wanted(after),
            "purpose": None if purpose is None else wanted(purpose),
        }
        [rows] = await self._files_do(f"list_files_{order}", values=values)
        if after is not None and not rows[0][0]:
            raise unknown_cursor(after)
        found = [_file(row[1:]) for row in rows if row[1] is not None]
        return FilePage(found[:limit], has_more=len(found) > limit)

    async def delete_file(self, tenant: str, file_id: str) -> bool:
        """Remove the file, drop its blobs and take it out of all vector stores; True if there was one."""
        values = key(tenant, file_id)
        removed = await self._remove_detached("delete_file", [values["id"]], values, expired=False)
        return bool(removed)

    async def add_upload(self, tenant: str, new: NewUpload) -> StoredUpload:
        """Write a pending upload."""
        check_file(tenant, new.purpose, new.filename, new.media_type)
        values = {
            "tenant": tenant,
            "id": new.id,
            "bytes": Int8(new.size),
            "purpose": new.purpose,
            "filename": new.filename,
            "media_type": new.media_type,
            "seconds": float(new.open_seconds),
            "keep": new.keep_seconds,
        }
        _, rows = await self._files_do("add_upload", "get_upload", values=values)
        return _upload(rows[0])

    async def get_upload(self, tenant: str, upload_id: str) -> StoredUpload | None:
        """Return the upload, or None."""
        [rows] = await self._files_do("get_upload", values=key(tenant, upload_id))
        return _upload(rows[0]) if rows else None

    async def add_part(self, tenant: str, upload_id: str, blob: Blob) -> bool:
        """Give an announced blob to a pending upload; False if either is not there any more."""
        values = _of_blob(wanted(tenant), wanted(upload_id), blob)
        [rows] = await self._files_do("add_part", values=values)
        return bool(rows)

    async def upload_parts(self, tenant: str, upload_id: str) -> list[Blob]:
        """Return the parts of an upload, in no order."""
        return await self.file_blobs(tenant, upload_id)

    async def complete_upload(
        self, tenant: str, upload_id: str, file_id: str, keys: Sequence[str]
    ) -> bool:
        """Make a file of parts of a pending upload, in the order of `keys`; False if it is not pending."""
        values = {**key(tenant, upload_id), "file_id": file_id, "keys": list(keys)}
        _, rows = await self._files_do("complete_upload", "get_upload", values=values)
        return bool(rows) and _upload(rows[0]).file_id == file_id

    async def cancel_upload(self, tenant: str, upload_id: str) -> bool:
        """Cancel a pending upload and drop its parts; False if it is not pending."""
        [rows] = await self._files_do("cancel_upload", values=key(tenant, upload_id))
        return bool(rows)

    async def dropped_blobs(self, *, limit: int, tenant: str | None = None) -> list[Dropped]:
        """Return blobs that nothing needs, of one tenant or of all."""
        if tenant is None:
            return [Dropped(*row) for row in await self._over_all("dropped_blobs", limit)]
        values = {"tenant": wanted(tenant), "limit": Int8(limit)}
        [rows] = await self._files_do("dropped_blobs_of", values=values)
        return [Dropped(tenant, row[0]) for row in rows]

    async def forget_blobs(self, tenant: str, keys: Sequence[str]) -> None:
        """Forget dropped blobs that were removed."""
        values = {"tenant": wanted(tenant), "keys": list(keys)}
        await self._files_do("forget_blobs", values=values)

    async def remove_expired_files(self, *, limit: int) -> int:
        """Remove files whose time has come, and uploads a day after theirs; returns how many."""
        count = 0
        expired = sorted(await self._over_all("expired_files", limit))
        for tenant, found in groupby(expired, key=itemgetter(0)):
            ids = [row[1] for row in found]
            values = {"tenant": tenant, "ids": ids}
            count += len(
                await self._remove_detached("remove_expired_files", ids, values, expired=True)
            )
        return count

    async def _remove_detached(
        self, name: str, file_ids: Sequence[str], values: Mapping[str, Any], *, expired: bool
    ) -> list[Row]:
        """Remove files, and what they are attached to vector stores with, in one transaction."""

        async def work(connection: Connection, _attempt: int) -> list[Row]:
            async with connection.transaction():
                await detach_files(connection, values["tenant"], file_ids, expired=expired)
                [rows] = await rows_of(connection, Statement(_SQL[name], values))
                return rows

        return await self._pool.run(work)

    async def _over_all(self, name: str, limit: int) -> list[Row]:
        async def work(connection: Connection, _attempt: int) -> list[Row]:
            cursor = await connection.execute(_GATES[name], {"limit": Int4(limit)})
            return await cursor.fetchall()

        return await self._pool.run(work)

    async def _files_do(self, *names: str, values: Mapping[str, Any]) -> list[list[Row]]:
        statements = [Statement(_SQL[name], values) for name in names]

        async def work(connection: Connection, _attempt: int) -> list[list[Row]]:
            return await rows_of(connection, *statements)

        return await self._pool.run(work)


def _of_blob(tenant: str, holder: str, blob: Blob) -> dict[str, Any]:
    return {
        "tenant": tenant,
        "id": holder,
        "key": blob.key,
        "bytes": Int8(blob.size),
        "sha256": blob.sha256,
    }


def _file(row: Row) -> StoredFile:
    file_id, created_at, expires_at, purpose, filename, size = row
    return StoredFile(
        id=file_id,
        created_at=created_at,
        expires_at=expires_at,
        purpose=purpose,
        filename=filename,
        size=size,
    )


def _upload(row: Row) -> StoredUpload:
    names = StoredUpload.__struct_fields__
    return StoredUpload(**dict(zip(names, row, strict=True)))
