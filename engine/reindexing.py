"""The index made again from the chunks that the store keeps.

What is there already is left alone, so a run that was interrupted is gone on with by another one. Workers
may serve meanwhile: what they attach they put in themselves, and what is detached is not left behind.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable

import msgspec

from engine.indexing import IndexingParts, is_in, put_in
from engine.ports import Removal, VectorStoreStore

_PAGE = 500
_AT_ONCE = 4

Progress = Callable[[int, int], None]
"""Told how many files are done, and of how many."""


class Reindexed(msgspec.Struct, frozen=True):
    """How many files there were, and how many of them were put in."""

    files: int
    put_in: int


async def reindex(parts: IndexingParts, tenant: str | None, progress: Progress) -> Reindexed:
    """Put all completed files of a tenant, or of all, into the index.

    Raises EmbeddingFailed, IndexUnavailable, StorageUnavailable; then it can be begun again.
    """
    total = 0
    async for page in _pages(parts.store, tenant):
        total += len(page)
    done = made = 0
    progress(done, total)
    room = asyncio.Semaphore(_AT_ONCE)

    async def one(place: Removal) -> None:
        nonlocal done, made
        async with room:
            is_new = await _make(parts, place)
        made += is_new
        done += 1
        progress(done, max(done, total))

    async for page in _pages(parts.store, tenant):
        running = [asyncio.create_task(one(place)) for place in page]
        try:
            await asyncio.gather(*running)
        finally:
            for task in running:
                task.cancel()
    return Reindexed(done, made)


async def _make(parts: IndexingParts, place: Removal) -> bool:
    """Put an attachment in, unless it is there; return whether it was."""
    where = (place.tenant, place.store, place.attachment)
    if await is_in(parts, *where):
        return False
    await put_in(parts, *where)
    kept = await parts.store.chunks(
        place.tenant, place.attachment, model=parts.embedder.model, after=-1, limit=1
    )
    if not kept:
        # Detached meanwhile: whoever removes it from the index may have been there before us.
        await parts.index.remove(place.tenant, place.store, [place.attachment])
    return bool(kept)


async def _pages(store: VectorStoreStore, tenant: str | None) -> AsyncIterator[list[Removal]]:
    after = None if tenant is None else (tenant, "")
    while page := await store.completed_attachments(after=after, limit=_PAGE):
        mine = [each for each in page if tenant in (None, each.tenant)]
        if mine:
            yield mine
        if len(mine) < len(page):
            return
        after = (page[-1].tenant, page[-1].attachment)
