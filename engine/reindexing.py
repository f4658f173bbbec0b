"""The index made again from the chunks that the store keeps.

What is there already is left alone, so a run that was interrupted is gone on with by another one. Workers
may serve meanwhile. A file that one of them ingests while the index is emptied has only parts of it there:
its worker sees that before and after it completes it (`put_in_whole`). One that a worker with another model
completes is put in here, if it is completed before a walk has found nothing more to do. What is detached is
not left behind.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable

import msgspec

from engine.indexing import IndexingParts, is_in, put_in, take_out
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
    """Put all completed files of a tenant, or of all, into the index, until there are no more.

    Raises EmbeddingFailed, IndexUnavailable, StorageUnavailable; then it can be begun again.
    """
    total = 0
    async for page in _pages(parts.store, tenant):
        total += len(page)
    progress(0, total)
    walk = _Walk(parts, tenant, lambda done: progress(done, max(done, total)))
    while await walk.once():
        pass
    return Reindexed(len(walk.done), walk.put_in)


class _Walk:
    """Goes through the completed files again and again; what was done is passed by."""

    def __init__(
        self, parts: IndexingParts, tenant: str | None, tell: Callable[[int], None]
    ) -> None:
        self._parts = parts
        self._tenant = tenant
        self._tell = tell
        self._room = asyncio.Semaphore(_AT_ONCE)
        self.done: set[tuple[str, str]] = set()
        self.put_in = 0

    async def once(self) -> bool:
        """Put in what lacks of all files that are completed by now; return whether there was any."""
        before = self.put_in
        async for page in _pages(self._parts.store, self._tenant):
            new = [each for each in page if (each.tenant, each.attachment) not in self.done]
            running = [asyncio.create_task(self._one(place)) for place in new]
            try:
                await asyncio.gather(*running)
            finally:
                for task in running:
                    task.cancel()
                await asyncio.gather(*running, return_exceptions=True)
        return self.put_in > before

    async def _one(self, place: Removal) -> None:
        async with self._room:
            is_new = await _make(self._parts, place)
        self.put_in += is_new
        self.done.add((place.tenant, place.attachment))
        self._tell(len(self.done))


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
        await take_out(parts.index, *where)
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
