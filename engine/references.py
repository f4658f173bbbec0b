"""References to stored items, and files, put right before anything is done with the items."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence

from engine.allowance import Allowance
from engine.api.items import Entry, Reference, WithFiles
from engine.errors import InvalidRequest
from engine.limits import Limits
from engine.ports import ResponseStore, StoredItem

Attach = Callable[[str, WithFiles, Allowance], Awaitable[StoredItem]]
"""Returns a tenant's item with its files read (`engine.attachments`)."""


async def resolve(
    store: ResponseStore, attach: Attach, tenant: str, entries: Sequence[Entry], limits: Limits
) -> list[StoredItem]:
    """Put stored items in the place of references to them, and read files.

    Raises InvalidRequest for an unknown one, and for more than a request may have read (rule X5).
    """
    allowance = Allowance(limits)
    found = await _found(store, tenant, entries)
    items = []
    for entry in entries:
        if isinstance(entry, StoredItem):
            items.append(entry)
        elif isinstance(entry, WithFiles):
            items.append(await attach(tenant, entry, allowance))
        elif entry.id in found:
            item = found[entry.id]
            # Each time that it is named: it is sent, and stored, as often.
            allowance.take(_size(item), _list(entry), code="context_length_exceeded")
            items.append(item)
        else:
            raise InvalidRequest(
                f"Item with id '{entry.id}' not found.",
                param=f"{entry.param}.id",
                code="item_not_found",
            )
    return items


async def _found(
    store: ResponseStore, tenant: str, entries: Sequence[Entry]
) -> dict[str, StoredItem]:
    references = [entry for entry in entries if isinstance(entry, Reference)]
    if not references:
        return {}
    try:
        return await store.find_items(tenant, [entry.id for entry in references])
    except InvalidRequest as error:
        error.param = _list(references[0])
        raise


def _list(entry: Reference) -> str:
    """Return where in the request the items are, of which this is one."""
    return entry.param.partition("[")[0]


def _size(item: StoredItem) -> int:
    """Return the bytes of an item, as it is shown or as it is sent, whichever are more."""
    return max(len(item.item), 0 if item.replay is None else len(item.replay))
