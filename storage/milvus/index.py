"""The vector index in Milvus: one collection for a model, and its tenant's store as scope of each chunk."""

from __future__ import annotations

import asyncio
from array import array
from collections.abc import Awaitable, Callable, Collection, Iterable, Sequence
from functools import partial
from typing import Any, TypeVar

from engine.errors import IndexUnavailable
from engine.ports import Hit, IndexedChunk
from storage.limits import check_chunks
from storage.milvus.client import CollectionGone, MilvusClient
from storage.milvus.collections import TEXT_BYTES, Collections
from storage.milvus.filters import NameLots, key_of, name_of, scope_of, within
from storage.words import asked_words, joined, words_of

_T = TypeVar("_T")

_BATCH = 256
# pymilvus makes a message of rows in the event loop: 3 ms for so many numbers of vectors.
_NUMBERS = 32_768
# So many searches for lots of attachments run at once.
_SEARCHES = 4
# Milvus refuses more results than that.
_LARGEST_LIMIT = 16_384
_STRONG = "Strong"


class MilvusIndex:
    """`engine.ports.VectorIndex` over a cluster or Lite, for the vectors of one model."""

    def __init__(self, client: MilvusClient, *, prefix: str, model: str) -> None:
        self._client = client
        self._collections = Collections(client, prefix, model)
        self._lots = NameLots()

    async def insert(
        self, tenant: str, store: str, attachment: str, chunks: Sequence[IndexedChunk]
    ) -> None:
        """Put chunks in, in batches; each is found when its batch was answered."""
        check_chunks(tenant, store, attachment)
        # The later one of two with one number: Milvus would keep both of one batch.
        unique = list({chunk.number: chunk for chunk in chunks}.values())
        for start in range(0, len(unique), _BATCH):
            batch = unique[start : start + _BATCH]
            rows = await asyncio.to_thread(_rows, scope_of(tenant, store), attachment, batch)
            await self._again(partial(self._upsert, rows))

    async def by_vector(
        self,
        tenant: str,
        store: str,
        vector: bytes,
        *,
        limit: int,
        attachments: Collection[str] | None = None,
    ) -> list[Hit]:
        """Return the nearest chunks."""
        floats = array("f", vector)
        name = self._collections.name(len(floats))

        async def search(expression: str) -> list[Hit]:
            if not await self._collections.has(len(floats)):
                return []
            return await self._search(name, "embedding", floats.tolist(), expression, limit)

        return await self._merged(search, tenant, store, attachments, limit)

    async def by_words(
        self,
        tenant: str,
        store: str,
        text: str,
        *,
        limit: int,
        attachments: Collection[str] | None = None,
    ) -> list[Hit]:
        """Return the chunks with any of the words, by BM25."""
        words = " ".join(asked_words(text))
        if not words:
            return []

        async def search(expression: str) -> list[Hit]:
            names = await self._collections.existing()
            found = [await self._search(name, "sparse", words, expression, limit) for name in names]
            return [hit for hits in found for hit in hits]

        return await self._merged(search, tenant, store, attachments, limit)

    async def remove(self, tenant: str, store: str, attachments: Collection[str]) -> bool:
        """Remove all chunks of these attachments: Milvus only notes that they are gone."""
        for expression in await self._filters(tenant, store, attachments):
            await self._again(partial(self._delete, expression))
        return True

    async def count(self, tenant: str, store: str, attachment: str) -> int:
        """Return how many chunks of an attachment are there."""
        [expression] = await self._filters(tenant, store, [attachment])

        async def count() -> int:
            total = 0
            for name in await self._collections.existing():
                total += await self._count(name, expression)
            return total

        return await self._again(count)

    async def clear(self) -> None:
        """Remove everything, of all tenants and models."""
        await self._collections.drop_all()

    async def _upsert(self, rows: list[dict[str, Any]]) -> None:
        dimension = len(rows[0]["embedding"])
        name = await self._collections.provide(dimension)
        some = max(1, _NUMBERS // dimension)
        for start in range(0, len(rows), some):
            await self._put(name, rows[start : start + some])
        keys = ", ".join(f'"{row["pk"]}"' for row in rows)
        for other in await self._collections.existing():
            # The model has vectors of another size now: these were put in before.
            if other != name:
                await self._delete_in(other, f"pk in [{keys}]")

    async def _put(self, name: str, rows: list[dict[str, Any]]) -> None:
        await self._client.call(
            # Lite's insert takes the place of what was there, and does not look for it first.
            lambda client: (client.insert if self._client.is_lite else client.upsert)(name, rows)
        )

    async def _delete(self, expression: str) -> None:
        # Also of the model before this one: nobody else would ever remove it there.
        for name in await self._collections.of_all_models():
            await self._delete_in(name, expression)

    async def _delete_in(self, name: str, expression: str) -> None:
        await self._client.call(lambda client: client.delete(name, filter=expression))

    async def _count(self, name: str, expression: str) -> int:
        rows = await self._client.call(
            lambda client: client.query(
                name, filter=expression, output_fields=["count(*)"], consistency_level=_STRONG
            )
        )
        count: int = rows[0]["count(*)"]
        return count

    async def _search(
        self, name: str, field: str, asked: object, expression: str, limit: int
    ) -> list[Hit]:
        found = await self._client.call(
            lambda client: client.search(
                name,
                data=[asked],
                anns_field=field,
                filter=expression,
                limit=min(limit, _LARGEST_LIMIT),
                output_fields=["attachment", "number"],
                consistency_level=_STRONG,
            )
        )
        hits = [
            Hit(hit["entity"]["attachment"], hit["entity"]["number"], hit["distance"])
            for hit in found[0]
        ]
        if field == "sparse":
            # Lite gives what is better the smaller number, Milvus the larger one.
            return [Hit(hit.attachment, hit.number, abs(hit.score)) for hit in hits]
        return hits

    async def _merged(
        self,
        search: Callable[[str], Awaitable[list[Hit]]],
        tenant: str,
        store: str,
        attachments: Collection[str] | None,
        limit: int,
    ) -> list[Hit]:
        """Search once, or once for each lot of attachments, and return the best of all."""
        if limit < 1:
            return []
        some = asyncio.Semaphore(_SEARCHES)

        async def one(expression: str) -> list[Hit]:
            async with some:
                return await self._repeated(lambda: search(expression))

        expressions = await self._filters(tenant, store, attachments)
        searches = [asyncio.ensure_future(one(expression)) for expression in expressions]
        try:
            async with self._client.deadline():
                found = await asyncio.gather(*searches)
        finally:
            for each in searches:
                each.cancel()
        hits = (hit for lot in found for hit in lot)
        return sorted(hits, key=_best_first)[:limit]

    async def _filters(
        self, tenant: str, store: str, attachments: Collection[str] | None
    ) -> list[str]:
        """Return the filter for a store, or those for each lot of some attachments in it."""
        scope = scope_of(tenant, store)
        if attachments is None:
            return [within(scope)]
        return [within(scope, names) for names in await self._lots.of(attachments)]

    async def _again(self, work: Callable[[], Awaitable[_T]]) -> _T:
        """Do something that can be repeated, whatever it waits for, within the deadline."""
        async with self._client.deadline():
            return await self._repeated(work)

    async def _repeated(self, work: Callable[[], Awaitable[_T]]) -> _T:
        """Do something once more where another process dropped a collection."""
        try:
            return await work()
        except CollectionGone:
            self._collections.forget()
        try:
            return await work()
        except CollectionGone as error:
            raise IndexUnavailable("The vector index is being made anew.") from error


def _rows(scope: str, attachment: str, chunks: Iterable[IndexedChunk]) -> list[dict[str, Any]]:
    return [
        {
            "pk": key_of(scope, attachment, chunk.number),
            "scope": scope,
            "name": name_of(attachment),
            "attachment": attachment,
            "number": chunk.number,
            "words": joined(words_of(chunk.text), TEXT_BYTES),
            "embedding": array("f", chunk.vector).tolist(),
        }
        for chunk in chunks
    ]


def _best_first(hit: Hit) -> tuple[float, str, int]:
    return -hit.score, hit.attachment, hit.number
