"""Files whose time has come, and blobs that nothing needs, are removed, a few at a time."""

from __future__ import annotations

import logging
from itertools import groupby

from engine.chore import Chore
from engine.ports import BlobStore, FileStore

_log = logging.getLogger(__name__)

_SECONDS = 60.0
_AT_ONCE = 100


class FileSweep:
    """Sweeps while a worker lives; several workers do not hurt each other."""

    def __init__(self, store: FileStore, blobs: BlobStore) -> None:
        self._store = store
        self._blobs = blobs
        self._sweeping = Chore(self._sweep, _SECONDS, jitter=0.5)

    def start(self) -> None:
        """Begin."""
        self._sweeping.start()

    async def stop(self) -> None:
        """End."""
        await self._sweeping.stop()

    async def _sweep(self) -> bool:
        expired = await self._store.remove_expired_files(limit=_AT_ONCE)
        removed = await remove_dropped(self._store, self._blobs)
        if expired or removed:
            _log.info("removed %d files whose time had come, and %d blobs", expired, removed)
        return expired >= _AT_ONCE or removed >= _AT_ONCE


async def remove_dropped(store: FileStore, blobs: BlobStore, tenant: str | None = None) -> int:
    """Remove some blobs that nothing needs, of one tenant or of all; return how many.

    The row goes last, so that a sweep that dies is done again.
    """
    found = await store.dropped_blobs(limit=_AT_ONCE, tenant=tenant)
    by_tenant = sorted(found, key=lambda each: each.tenant)
    for owner, group in groupby(by_tenant, key=lambda each: each.tenant):
        keys = [each.key for each in group]
        await blobs.delete(keys)
        await store.forget_blobs(owner, keys)
    return len(found)
