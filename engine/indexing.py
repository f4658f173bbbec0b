"""Chunks that are kept, put into the index with their vectors."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from engine.errors import IndexUnavailable
from engine.ports import Embedder, IndexedChunk, StoredChunk, VectorIndex, VectorStoreStore
from engine.undisturbed import undisturbed

# An index that is emptied so often meanwhile is none.
_TIMES = 3


class IndexingParts(msgspec.Struct, frozen=True, kw_only=True):
    """What chunks are indexed with; `batch` of them are read, embedded and put in at a time."""

    store: VectorStoreStore
    embedder: Embedder
    index: VectorIndex
    batch: int = 64


async def put_in(parts: IndexingParts, tenant: str, store: str, attachment: str) -> int:
    """Put the chunks of an attachment into the index, embedding those that lack vectors; return how many.

    Raises EmbeddingFailed, IndexUnavailable, StorageUnavailable. What was done stays done. A cancel waits
    until what is on its way to the index is there: who is cancelled may have to remove it.
    """
    after, count = -1, 0
    while chunks := await parts.store.chunks(
        tenant, attachment, model=parts.embedder.model, after=after, limit=parts.batch
    ):
        whole = await _embedded(parts, tenant, attachment, chunks)
        await undisturbed(parts.index.insert(tenant, store, attachment, whole))
        after, count = chunks[-1].number, count + len(chunks)
    return count


async def put_in_whole(
    parts: IndexingParts, tenant: str, store: str, attachment: str, *, is_in: int = 0
) -> int:
    """Put an attachment in, again where the index was emptied meanwhile; return how many chunks it has.

    With `is_in`, so many were put in before, and it is done only where they are no longer there. Raises as
    `put_in`.
    """
    count = is_in
    for _ in range(_TIMES):
        if count and await parts.index.count(tenant, store, attachment) >= count:
            return count
        count = await put_in(parts, tenant, store, attachment)
        if not count:
            return 0  # detached meanwhile
    if await parts.index.count(tenant, store, attachment) < count:
        raise IndexUnavailable("The vector index does not keep what is put into it.")
    return count


async def take_out(index: VectorIndex, tenant: str, store: str, attachment: str) -> None:
    """Remove an attachment from an index, however many steps that takes; raises IndexUnavailable."""
    while not await index.remove(tenant, store, [attachment]):
        pass


async def is_in(parts: IndexingParts, tenant: str, store: str, attachment: str) -> bool:
    """True if the index has all chunks of an attachment, with vectors of the embedder's model."""
    indexed = await parts.index.count(tenant, store, attachment)
    if not indexed:
        return False
    kept = await parts.store.chunk_count(tenant, attachment, model=parts.embedder.model)
    return indexed == kept.chunks == kept.embedded


async def _embedded(
    parts: IndexingParts, tenant: str, attachment: str, chunks: Sequence[StoredChunk]
) -> list[IndexedChunk]:
    vectors = {chunk.number: chunk.vector for chunk in chunks if chunk.vector is not None}
    lacking = [chunk for chunk in chunks if chunk.vector is None]
    for first in range(0, len(lacking), parts.embedder.at_once):
        some = lacking[first : first + parts.embedder.at_once]
        made = await parts.embedder.embed([chunk.text for chunk in some], "passage")
        new = [(chunk.number, vector) for chunk, vector in zip(some, made, strict=True)]
        await parts.store.store_vectors(tenant, attachment, model=parts.embedder.model, vectors=new)
        vectors.update(new)
    return [IndexedChunk(chunk.number, chunk.text, vectors[chunk.number]) for chunk in chunks]
