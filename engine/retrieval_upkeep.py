"""What vector stores leave behind goes: chunks, what is in the index, files of stores whose time has come."""

from __future__ import annotations

import logging
import random
from collections.abc import Iterable

from engine.chore import Chore
from engine.errors import IndexUnavailable
from engine.ports import Removal, VectorIndex, VectorStoreStore

_log = logging.getLogger(__name__)

_DROP_SECONDS = 5.0
_REMOVE_SECONDS = 5.0
_REMOVE_AT_ONCE = 200
# What is gone is looked through again in each step until it is forgotten.
_OF_ONE_STORE = 20
# After so many stores an index is away: each may have cost its deadline.
_FAILURES = 3
_EXPIRE_SECONDS = 60.0
_EXPIRE_AT_ONCE = 20


class RetrievalUpkeep:
    """Works while a worker lives; several do not hurt each other. Without an index none is cleared."""

    def __init__(self, store: VectorStoreStore, index: VectorIndex | None) -> None:
        self._store = store
        self._index = index
        self._dropping = Chore(store.drop_chunks, _DROP_SECONDS, jitter=0.5)
        self._removing = Chore(self._remove, _REMOVE_SECONDS, jitter=0.5)
        self._expiring = Chore(self._expire, _EXPIRE_SECONDS, jitter=0.5)

    def start(self) -> None:
        """Begin."""
        self._dropping.start()
        self._expiring.start()
        if self._index is not None:
            self._removing.start()

    async def stop(self) -> None:
        """End."""
        await self._dropping.stop()
        await self._expiring.stop()
        await self._removing.stop()

    async def _remove(self) -> bool:
        if self._index is None:
            return False
        return await remove_gone(self._store, self._index)

    async def _expire(self) -> bool:
        expired = await self._store.expire_vector_stores(limit=_EXPIRE_AT_ONCE)
        if expired:
            _log.info("emptied %d vector stores whose time had come", expired)
        return expired == _EXPIRE_AT_ONCE


async def remove_gone(store: VectorStoreStore, index: VectorIndex) -> bool:
    """Remove some of what is gone from the index, of each vector store a lot; True if there may be more.

    Attachments are forgotten when none of theirs is left, so that a removal that dies is done again. What
    fails in one store holds up no other one; raises IndexUnavailable where it failed in all of them, and
    StorageUnavailable.
    """
    found = _by_store(await store.removals(limit=_REMOVE_AT_ONCE))
    # By chance, so that those behind stores that fail have their turn too.
    random.shuffle(found)
    done, failed = 0, 0
    for tenant, vector_store, attachments in found:
        try:
            if await index.remove(tenant, vector_store, attachments):
                await store.forget_removals(tenant, attachments)
            done += 1
        except IndexUnavailable as error:
            failed += 1
            if failed == _FAILURES or failed == len(found):
                raise
            _log.warning("what is gone of a vector store is still in the index: %s", error)
    return done > 0


def _by_store(removals: Iterable[Removal]) -> list[tuple[str, str, list[str]]]:
    """Return tenant, vector store and some attachments of each."""
    by_store: dict[tuple[str, str], list[str]] = {}
    for each in removals:
        by_store.setdefault((each.tenant, each.store), []).append(each.attachment)
    return [(*place, attachments[:_OF_ONE_STORE]) for place, attachments in by_store.items()]
