"""The vector index in Postgres: every search looks at all chunks of the store, so it misses none."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Sequence
from typing import Any

from psycopg.types.numeric import Int4, Int8

from engine.errors import IndexUnavailable, StorageUnavailable
from engine.ports import Hit, IndexedChunk
from storage.limits import check_chunks, wanted
from storage.pgvector.floats import Floats, FloatsDumper
from storage.postgres import queries
from storage.postgres.pool import Connection, Pool
from storage.postgres.scope import Row, Statement, rows_of
from storage.words import asked_words, joined, words_of

_SQL = queries.load("index.sql", __package__)

_BATCH = 256
# A statement that removes more than it can within its time never gets past it: these are some 8 MB where
# vectors have 1,536 numbers, and their words.
_REMOVED_AT_ONCE = 1000
# A tsvector has room for a megabyte, and a word for as many places as its rank ever counts.
_WORDS_BYTES = 256 << 10
_PLACES = 255
_LAST_PLACE = 16_383
# What a search by words costs grows with the words that are asked for.
_ASKED_WORDS = 64


class PgvectorIndex:
    """`engine.ports.VectorIndex` over the tables of `sql/migrations`, for the vectors of one model.

    Also raises `InvalidRequest` for names that cannot be stored.
    """

    def __init__(self, pool: Pool, model: str) -> None:
        self._pool = pool
        self._model = hashlib.blake2b(model.encode(), digest_size=16).hexdigest()

    async def insert(
        self, tenant: str, store: str, attachment: str, chunks: Sequence[IndexedChunk]
    ) -> None:
        """Put chunks in, a batch in each transaction."""
        check_chunks(tenant, store, attachment)
        for start in range(0, len(chunks), _BATCH):
            await self._insert(tenant, store, attachment, chunks[start : start + _BATCH])

    async def by_vector(
        self,
        tenant: str,
        store: str,
        vector: bytes,
        *,
        limit: int,
        attachments: Collection[str] | None = None,
    ) -> list[Hit]:
        """Return the nearest chunks by their true distances."""
        floats = Floats(vector)
        values = {"floats": floats, "dimension": Int4(len(floats)), "limit": Int8(limit)}
        return await self._search("by_vector", tenant, store, attachments, values)

    async def by_words(
        self,
        tenant: str,
        store: str,
        text: str,
        *,
        limit: int,
        attachments: Collection[str] | None = None,
    ) -> list[Hit]:
        """Return the chunks with any of the words, by how rare and how frequent these are."""
        words = asked_words(text, at_most=_ASKED_WORDS)
        if not words:
            return []
        values = {"words": words, "limit": Int8(limit)}
        return await self._search("by_words", tenant, store, attachments, values)

    async def remove(self, tenant: str, store: str, attachments: Collection[str]) -> bool:
        """Remove some chunks of these attachments, in one transaction; True where none is left."""
        values = {
            "tenant": wanted(tenant),
            "store": wanted(store),
            "attachments": sorted(_names(attachments)),
            "limit": Int8(_REMOVED_AT_ONCE),
        }
        [[row]] = await self._do([Statement(_SQL["remove_lot"], values)])
        found: int = row[0]
        removed: int = row[1]
        return found < _REMOVED_AT_ONCE and removed == found

    async def count(self, tenant: str, store: str, attachment: str) -> int:
        """Return how many chunks of an attachment are there."""
        values = {**self._key(tenant, store), "attachment": wanted(attachment)}
        [[row]] = await self._do([Statement(_SQL["count"], values)])
        count: int = row[0]
        return count

    async def clear(self) -> None:
        """Remove everything, of all tenants and models."""

        async def work(connection: Connection, _attempt: int) -> None:
            await connection.execute(_SQL["clear"])

        try:
            await self._pool.run(work)
        except StorageUnavailable as error:
            raise IndexUnavailable(str(error)) from error

    async def _insert(
        self, tenant: str, store: str, attachment: str, chunks: Sequence[IndexedChunk]
    ) -> None:
        # The later one of two with one number: a statement cannot change a row twice.
        unique = list({chunk.number: chunk for chunk in chunks}.values())
        values = {
            **self._key(tenant, store),
            "attachment": attachment,
            "numbers": [Int4(chunk.number) for chunk in unique],
            "dimension": Int4(len(unique[0].vector) // 4),
            "floats": Floats(b"".join(chunk.vector for chunk in unique)),
            "words": [_places(chunk.text) for chunk in unique],
        }
        await self._do(Statement(_SQL[name], values) for name in ("insert_vectors", "insert_words"))

    async def _search(
        self,
        name: str,
        tenant: str,
        store: str,
        attachments: Collection[str] | None,
        values: dict[str, Any],
    ) -> list[Hit]:
        values = {**values, **self._key(tenant, store)}
        if attachments is not None:
            name, values["attachments"] = f"{name}_in", _names(attachments)
        [rows] = await self._do([Statement(_SQL[name], values)])
        return [Hit(*row) for row in rows]

    def _key(self, tenant: str, store: str) -> dict[str, Any]:
        return {"tenant": wanted(tenant), "store": wanted(store), "model": self._model}

    async def _do(self, statements: Any) -> list[list[Row]]:
        statements = list(statements)

        async def work(connection: Connection, _attempt: int) -> list[list[Row]]:
            connection.adapters.register_dumper(Floats, FloatsDumper)
            return await rows_of(connection, *statements)

        try:
            return await self._pool.run(work)
        except StorageUnavailable as error:
            raise IndexUnavailable(str(error)) from error


def _names(attachments: Collection[str]) -> list[str]:
    return [wanted(attachment) for attachment in attachments]


def _places(text: str) -> str:
    """Return the words of a text as a tsvector is written: each with its places."""
    places: dict[str, list[str]] = {}
    for place, word in enumerate(joined(words_of(text), _WORDS_BYTES).split(), start=1):
        found = places.setdefault(word, [])
        if len(found) < _PLACES:
            found.append(str(min(place, _LAST_PLACE)))
    return " ".join(f"{word}:{','.join(found)}" for word, found in places.items())
