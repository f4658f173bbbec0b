"""Files of vector stores, batches of them, and what of them is found, in Postgres."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
from psycopg.types.numeric import Int8

from engine.ports import (
    Attached,
    AttachmentPage,
    AttachmentStatus,
    Attributes,
    AttributeValue,
    Chunking,
    FileCounts,
    Filter,
    FoundChunk,
    NewAttachment,
    NewVectorStore,
    Order,
    StoredAttachment,
    StoredBatch,
)
from storage.limits import check_attached, last_of_each, wanted
from storage.postgres import queries
from storage.postgres.detaching import detach
from storage.postgres.filtering import compiled
from storage.postgres.pool import Connection, Pool
from storage.postgres.scope import Row, Statement, key, rows_of
from storage.postgres.vector_stores import Window, columns_of, stored_of

_SQL = (
    queries.load("attachments.sql")
    | queries.load("detaching.sql")
    | queries.load("vector_stores.sql")
)
_ATTACHING = ("attach", "attachments_by_id", "get_vector_store", "get_batch")
_labels = msgspec.json.Decoder(dict[str, AttributeValue])


class Attachments:
    """The part of `engine.ports.VectorStoreStore` about files of stores, batches and searching."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def attach(
        self,
        tenant: str,
        store: str | NewVectorStore,
        new: Sequence[NewAttachment],
        *,
        batch: str | None = None,
    ) -> Attached | None:
        """Attach files and queue them, together with their batch if there is one, and with a new store.

        None without such a store, or if it has expired. What is attached under the same id already stays.
        """
        check_attached(tenant, batch, new)
        chosen = last_of_each(new)
        name = store if isinstance(store, str) else store.id
        values = {**key(tenant, name), "batch": batch, **_columns(chosen)}
        hold = [Statement(_SQL[name], values) for name in ("lock_files", "lock_live_store")]
        write = [_first(tenant, store), *(Statement(_SQL[name], values) for name in _ATTACHING)]

        async def work(connection: Connection, _attempt: int) -> Attached | None:
            async with connection.transaction():
                files, live = await rows_of(connection, *hold)
                if not live and isinstance(store, str):
                    return None
                known = {row[0] for row in files}
                if unknown := [each.file_id for each in chosen if each.file_id not in known]:
                    return Attached([], unknown)
                [old] = await rows_of(connection, Statement(_SQL["replaced"], values))
                await detach(connection, tenant, [row[0] for row in old])
                *_, rows, [made], batches = await rows_of(connection, *write)
            found = {row[0]: _attachment(row) for row in rows}
            return Attached(
                [found[each.id] for each in chosen if each.id in found],
                store=stored_of(made),
                batch=_batch(batches[0]) if batches else None,
            )

        return await self._pool.run(work)

    async def get_attachment(
        self, tenant: str, store: str, file_id: str
    ) -> StoredAttachment | None:
        """Return the file of a store, or None."""
        values = {**key(tenant, store), "file_id": wanted(file_id)}
        [rows] = await self._attachments_do("get_attachment", values=values)
        return _attachment(rows[0]) if rows else None

    async def list_attachments(
        self,
        tenant: str,
        store: str,
        *,
        limit: int,
        after: str | None,
        before: str | None,
        order: Order,
        status: AttachmentStatus | None = None,
        batch: str | None = None,
    ) -> AttachmentPage:
        """Return a page by creation; cursors are ids of files."""
        window = Window(limit, after, before, order)
        values = {
            **key(tenant, store),
            **window.values,
            "status": status,
            "batch": None if batch is None else wanted(batch),
        }
        [rows] = await self._attachments_do(f"list_attachments_{window.direction}", values=values)
        page, more = window.page_of(rows)
        return AttachmentPage([_attachment(row) for row in page], has_more=more)

    async def label(
        self, tenant: str, store: str, file_id: str, attributes: Attributes
    ) -> StoredAttachment | None:
        """Replace the attributes of a file; None if it is not attached."""
        labels = _encoded(attributes)
        values = {**key(tenant, store), "file_id": wanted(file_id), "labels": labels}
        [rows] = await self._attachments_do("label", values=values)
        return _attachment(rows[0]) if rows else None

    async def detach(self, tenant: str, store: str, file_id: str) -> bool:
        """Take a file out of a store; True if it was there."""
        values = {**key(tenant, store), "file_id": wanted(file_id)}
        names = ("lock_store", "attachment_of_file")

        async def work(connection: Connection, _attempt: int) -> bool:
            async with connection.transaction():
                held, rows = await rows_of(
                    connection, *(Statement(_SQL[name], values) for name in names)
                )
                ids = [row[0] for row in rows] if held else []
                await detach(connection, values["tenant"], ids)
                return bool(ids)

        return await self._pool.run(work)

    # -- batches ----------------------------------------------------------------------------------

    async def get_batch(self, tenant: str, store: str, batch: str) -> StoredBatch | None:
        """Return the batch, or None."""
        values = {**key(tenant, store), "batch": wanted(batch)}
        [rows] = await self._attachments_do("get_batch", values=values)
        return _batch(rows[0]) if rows else None

    async def cancel_batch(self, tenant: str, store: str, batch: str) -> StoredBatch | None:
        """Cancel those of its files that are in progress; None if there is no such batch."""
        values: dict[str, Any] = {**key(tenant, store), "batch": wanted(batch)}
        look = ("lock_store", "unfinished_of_batch")

        async def work(connection: Connection, _attempt: int) -> list[Row]:
            async with connection.transaction():
                *_, rows = await rows_of(
                    connection, *(Statement(_SQL[name], values) for name in look)
                )
                ended = {**values, "ids": [row[0] for row in rows]}
                names = ("lock_ingestions", "cancel_batch", "cancel", "get_batch")
                *_, found = await rows_of(
                    connection, *(Statement(_SQL[name], ended) for name in names)
                )
                return found

        rows = await self._pool.run(work)
        return _batch(rows[0]) if rows else None

    # -- searching --------------------------------------------------------------------------------

    async def matching(self, tenant: str, store: str, filters: Filter, *, limit: int) -> list[str]:
        """Return the completed attachments whose attributes match a filter, the oldest first."""
        path, variables = compiled(filters)
        values = {
            **key(tenant, store),
            "path": path,
            "vars": variables.decode(),
            "limit": Int8(limit),
        }
        [rows] = await self._attachments_do("matching", values=values)
        return [row[0] for row in rows]

    async def found(
        self, tenant: str, places: Sequence[tuple[str, int]]
    ) -> dict[tuple[str, int], FoundChunk]:
        """Return what of these places (attachment, number) is there, of completed attachments alone."""
        values = {
            "tenant": wanted(tenant),
            "ids": [wanted(attachment) for attachment, _ in places],
            "numbers": [Int8(number) for _, number in places],
        }
        [rows] = await self._attachments_do("found", values=values)
        return {(row[0], row[1]): _found(row) for row in rows}

    async def _attachments_do(self, *names: str, values: Mapping[str, Any]) -> list[list[Row]]:
        statements = [Statement(_SQL[name], values) for name in names]

        async def work(connection: Connection, _attempt: int) -> list[list[Row]]:
            return await rows_of(connection, *statements)

        return await self._pool.run(work)


def _first(tenant: str, store: str | NewVectorStore) -> Statement:
    """Return what writes a store that is new, and notes that another one was used."""
    if isinstance(store, str):
        return Statement(_SQL["touch_vector_stores"], {"tenant": tenant, "ids": [store]})
    return Statement(_SQL["add_vector_store"], columns_of(tenant, store))


def _columns(new: Sequence[NewAttachment]) -> dict[str, Any]:
    return {
        "ids": [each.id for each in new],
        "file_ids": [wanted(each.file_id) for each in new],
        "labels": [_encoded(each.attributes) for each in new],
        "sizes": [Int8(each.chunking.size) for each in new],
        "overlaps": [Int8(each.chunking.overlap) for each in new],
        "count": Int8(len(new)),
    }


def _encoded(attributes: Attributes) -> str:
    return msgspec.json.encode(attributes).decode()


def _attachment(row: Row) -> StoredAttachment:
    name, store, file_id, created_at, status, code, error, usage, labels, size, overlap = row
    return StoredAttachment(
        id=name,
        store=store,
        file_id=file_id,
        created_at=created_at,
        status=status,
        error=None if code is None else (code, error.decode()),
        usage_bytes=usage,
        attributes=_labels.decode(labels),
        chunking=Chunking(size, overlap),
    )


def _batch(row: Row) -> StoredBatch:
    name, store, created_at, cancelled, *counts = row
    return StoredBatch(
        id=name,
        store=store,
        created_at=created_at,
        cancelled=cancelled,
        counts=FileCounts(
            in_progress=counts[0], completed=counts[1], cancelled=counts[2], failed=counts[3]
        ),
    )


def _found(row: Row) -> FoundChunk:
    attachment, number, store, file_id, filename, labels, text = row
    return FoundChunk(
        attachment=attachment,
        number=number,
        store=store,
        file_id=file_id,
        filename=filename,
        attributes=_labels.decode(labels),
        text=text.decode(),
    )
