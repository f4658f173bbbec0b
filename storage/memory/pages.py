"""Pages of lists in memory."""

from __future__ import annotations

from typing import TypeVar

from engine.ports import EventBatch, Order
from storage.limits import unknown_cursor

_T = TypeVar("_T")


def ordered(found: list[_T], order: Order) -> list[_T]:
    """Return a list that is in order of creation in the order asked for."""
    return found if order == "asc" else found[::-1]


def past(found: list[_T], ids: list[str], after: str | None) -> list[_T]:
    """Return what follows `after`; raises `InvalidRequest` for a cursor that is not in `ids`."""
    if after is None:
        return found
    if after not in ids:
        raise unknown_cursor(after)
    # The last of equal ids: a client that follows its cursor always gets further.
    last = len(ids) - 1 - ids[::-1].index(after)
    return found[last + 1 :]


def between(found: list[_T], ids: list[str], *, after: str | None, before: str | None) -> list[_T]:
    """Return what lies between two cursors; raises `InvalidRequest` for one that is not in `ids`."""
    for cursor, param in ((after, "after"), (before, "before")):
        if cursor is not None and cursor not in ids:
            raise unknown_cursor(cursor, param)
    first = 0 if after is None else ids.index(after) + 1
    return found[first : len(ids) if before is None else ids.index(before)]


def page_of(
    found: list[_T], limit: int, *, after: str | None, before: str | None
) -> tuple[list[_T], bool]:
    """Return what is nearest to `after`, or, where there is only `before`, to that; and if there is more."""
    backwards = before is not None and after is None
    return found[-limit:] if backwards else found[:limit], len(found) > limit


def whole(found: list[_T], sizes: list[int], limit: int, most: int) -> tuple[list[_T], bool]:
    """Return the first `limit` that have up to `most` bytes together, one at least; and if there is more."""
    count = size = 0
    while count < min(limit, len(found)) and (not count or size + sizes[count] <= most):
        size += sizes[count]
        count += 1
    return found[:count], count < len(found)


def batches_of(log: list[EventBatch], limit: int) -> list[EventBatch]:
    """Return the first batches of a log: one at least, and then while they are below `limit` bytes."""
    size = 0
    for count, batch in enumerate(log):
        if size >= limit:
            return log[:count]
        size += len(batch.frames)
    return log
