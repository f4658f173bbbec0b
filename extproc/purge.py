"""`holdfast purge`: everything of one tenant is removed, as somebody who asks to be forgotten may demand."""

from __future__ import annotations

from collections.abc import Callable

from engine.ports import RunStore

# Few enough that no statement holds its locks for long.
_AT_ONCE = 500


async def purge(store: RunStore, tenant: str, progress: Callable[[str], None]) -> int:
    """Remove every response of a tenant, running ones too, and every conversation; return how many."""
    removed = 0
    while batch := await store.remove_tenant(tenant, limit=_AT_ONCE):
        removed += batch
        progress(f"{removed} removed so far")
    return removed
