"""References to stored items, and files, put right before anything is done with the items."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence

from engine.api.items import Entry, Reference, WithFiles
from engine.errors import InvalidRequest
from engine.ports import ResponseStore, StoredItem

Attach = Callable[[str, WithFiles], Awaitable[StoredItem]]
"""Returns a tenant's item with its files read (`engine.attachments`)."""


async def resolve(
    store: ResponseStore, attach: Attach, tenant: str, entries: Sequence[Entry]
) -> list[StoredItem]:
    """Put stored items in the place of references to them, and read files.

    Raises InvalidRequest for an unknown one.
    """
    wanted = [entry.id for entry in entries if isinstance(entry, Reference)]
    found = await store.find_items(tenant, wanted) if wanted else {}
    items = []
    for entry in entries:
        if isinstance(entry, StoredItem):
            items.append(entry)
        elif isinstance(entry, WithFiles):
            items.append(await attach(tenant, entry))
        elif entry.id in found:
            items.append(found[entry.id])
        else:
            raise InvalidRequest(
                f"Item with id '{entry.id}' not found.",
                param=f"{entry.param}.id",
                code="item_not_found",
            )
    return items
