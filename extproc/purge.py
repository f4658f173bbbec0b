"""`holdfast purge`: everything of one tenant is removed, as somebody who asks to be forgotten may demand."""

from __future__ import annotations

from collections.abc import Callable

from engine.file_sweep import remove_dropped
from engine.ports import BlobStore, Store

# Few enough that no statement holds its locks for long.
_AT_ONCE = 500


async def purge(
    store: Store, blobs: Callable[[], BlobStore], tenant: str, progress: Callable[[str], None]
) -> int:
    """Remove all that a tenant has, running responses and the bytes of its files too.

    Returns how many responses and conversations there were. `blobs` is opened when nothing else is left.
    """
    removed = 0
    while batch := await store.remove_tenant(tenant, limit=_AT_ONCE):
        removed += batch
        progress(f"{removed} removed so far")
    opened = blobs()
    while await remove_dropped(store, opened, tenant):
        pass
    return removed
