"""Threads in memory: continuing, branching, walking up, and taking out."""

from __future__ import annotations

import secrets
from collections.abc import Iterator

from engine.errors import UnknownPreviousResponse
from engine.ports import NewResponse, ReplayItem, StoredItem, ThreadPoint
from storage.memory.records import Response, Tenant, Thread


def place(mine: Tenant, new: NewResponse) -> Thread:
    """Return the thread that a new response writes to: the one that it continues, or a branch.

    Raises `UnknownPreviousResponse` where the thread that it continues is gone.
    """
    if new.after is not None and new.after.thread_id not in mine.threads:
        raise UnknownPreviousResponse(new.previous_response_id or "")
    return _claim(mine, new.after) or _branch(mine, new.after, new.root)


def append(mine: Tenant, thread: Thread, items: list[StoredItem]) -> None:
    """Add items to the end of a thread."""
    for position, item in enumerate(items, start=thread.length):
        thread.items[position] = item
        mine.items.setdefault(item.id, []).append(item)
    thread.length += len(items)


def append_output(mine: Tenant, thread: Thread, items: list[StoredItem]) -> None:
    """Add a response's output to its thread, whose new end is then free to be continued."""
    thread.outputs.update(range(thread.length, thread.length + len(items)))
    append(mine, thread, items)
    thread.tip, thread.writer = thread.length, None


def remove(mine: Tenant, response: Response) -> None:
    """Remove a response with its items, its key, and the threads that nothing needs any more."""
    del mine.responses[response.id]
    if response.key is not None:
        del mine.keys[response.key]
    thread = response.thread
    if thread.writer == response.id:
        thread.writer = None
    for position in range(response.input_start, response.end):
        _take_out(mine, thread.items.pop(position))
    _prune(mine, thread)


def history(mine: Tenant, end: ThreadPoint) -> list[ReplayItem]:
    """Return everything that precedes a point, in order."""
    items: list[ReplayItem] = []
    for thread, until in _chain(mine, end):
        own = sorted(position for position in thread.items if position < until)
        items[:0] = [_replayed(thread, position) for position in own]
    return items


def _claim(mine: Tenant, after: ThreadPoint | None) -> Thread | None:
    """Return the thread that `after` is the tip of, unless a response is being written there."""
    thread = None if after is None else mine.threads[after.thread_id]
    if after is None or thread is None:
        return None
    return thread if thread.writer is None and thread.tip == after.position else None


def _branch(mine: Tenant, after: ThreadPoint | None, root: str | None) -> Thread:
    thread_id = f"thr_{secrets.token_hex(12)}"
    begun = root if root is not None else thread_id
    root_id = begun if after is None else mine.threads[after.thread_id].root_id
    start = 0 if after is None else after.position
    thread = Thread(thread_id, root_id, after, tip=start, length=start)
    mine.threads[thread_id] = thread
    return thread


def _take_out(mine: Tenant, item: StoredItem) -> None:
    same_id = mine.items[item.id]
    # By identity: equal items may have come with other responses.
    del same_id[next(at for at, other in enumerate(same_id) if other is item)]
    if not same_id:
        del mine.items[item.id]


def _prune(mine: Tenant, thread: Thread) -> None:
    """Remove a thread that has no response and no branch, and then its parent if that has none."""
    needed = {response.thread.id for response in mine.responses.values()}
    needed |= {each.parent.thread_id for each in mine.threads.values() if each.parent}
    if thread.id not in needed:
        del mine.threads[thread.id]
        if thread.parent is not None:
            _prune(mine, mine.threads[thread.parent.thread_id])


def _replayed(thread: Thread, position: int) -> ReplayItem:
    item = thread.items[position]
    return ReplayItem(item.type, item.call_id, item.replay, position in thread.outputs)


def _chain(mine: Tenant, end: ThreadPoint) -> Iterator[tuple[Thread, int]]:
    """Yield the thread of `end` and its ancestors, each with the position where its part ends."""
    point: ThreadPoint | None = end
    until = end.position
    while point is not None:
        until = min(until, point.position)
        thread = mine.threads[point.thread_id]
        yield thread, until
        point = thread.parent
