"""References to stored items, put right before anything is done with them."""

from __future__ import annotations

from collections.abc import Sequence

from engine.api.items import Reference
from engine.errors import InvalidRequest
from engine.ports import ResponseStore, StoredItem


async def resolve(
    store: ResponseStore, tenant: str, entries: Sequence[StoredItem | Reference]
) -> list[StoredItem]:
    """Put stored items in the place of references to them; raises InvalidRequest for an unknown one."""
    wanted = [entry.id for entry in entries if isinstance(entry, Reference)]
    found = await store.find_items(tenant, wanted) if wanted else {}
    items = []
    for entry in entries:
        if isinstance(entry, StoredItem):
            items.append(entry)
        elif entry.id in found:
            items.append(found[entry.id])
        else:
            raise InvalidRequest(
                f"Item with id '{entry.id}' not found.",
                param=f"{entry.param}.id",
                code="item_not_found",
            )
    return items
