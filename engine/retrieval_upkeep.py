"""What vector stores leave behind goes: chunks, what is in the index, files of stores whose time has come."""

from __future__ import annotations

import logging
from itertools import groupby

from engine.chore import Chore
from engine.ports import Removal, VectorIndex, VectorStoreStore

_log = logging.getLogger(__name__)

_DROP_SECONDS = 5.0
_REMOVE_SECONDS = 5.0
_REMOVE_AT_ONCE = 200
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
        return await remove_gone(self._store, self._index) == _REMOVE_AT_ONCE

    async def _expire(self) -> bool:
        expired = await self._store.expire_vector_stores(limit=_EXPIRE_AT_ONCE)
        if expired:
            _log.info("emptied %d vector stores whose time had come", expired)
        return expired == _EXPIRE_AT_ONCE


async def remove_gone(store: VectorStoreStore, index: VectorIndex) -> int:
    """Remove some attachments from the index that are gone; return how many.

    They are forgotten last, so that a removal that dies is done again.
    """

    def place(removal: Removal) -> tuple[str, str]:
        return removal.tenant, removal.store

    found = sorted(await store.removals(limit=_REMOVE_AT_ONCE), key=place)
    for (tenant, vector_store), group in groupby(found, key=place):
        attachments = [removal.attachment for removal in group]
        await index.remove(tenant, vector_store, attachments)
        await store.forget_removals(tenant, attachments)
    return len(found)
