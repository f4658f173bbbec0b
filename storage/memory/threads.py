"""Threads in memory: continuing, branching, walking up, dropping, and taking out."""

from __future__ import annotations

import secrets
from collections.abc import Iterator

import msgspec

from engine.errors import UnknownPreviousResponse
from engine.ports import NewResponse, ReplayItem, StoredItem, ThreadPoint
from storage.memory.approvals import forget_asked
from storage.memory.records import Response, Tenant, Thread


def place(mine: Tenant, new: NewResponse) -> Thread:
    """Return the thread that a new response writes to: the one that it continues, or a branch.

    Raises `UnknownPreviousResponse` where the thread that it continues is gone.
    """
    if new.after is not None and new.after.thread_id not in mine.threads:
        raise UnknownPreviousResponse(new.previous_response_id or "")
    return _claim(mine, new.after) or new_thread(mine, new.after, new.root)


def append(mine: Tenant, thread: Thread, items: list[StoredItem], owner: str) -> None:
    """Add items, which came with `owner`, to the end of a thread."""
    for position, item in enumerate(items, start=thread.length):
        thread.items[position] = item
        thread.owners[position] = owner
        mine.items.setdefault(item.id, []).append(item)
    thread.length += len(items)


def append_output(mine: Tenant, thread: Thread, items: list[StoredItem], owner: str) -> None:
    """Add a response's output to its thread, whose new end is then free to be continued."""
    thread.outputs.update(range(thread.length, thread.length + len(items)))
    append(mine, thread, items, owner)
    thread.tip, thread.writer = thread.length, None


def add(mine: Tenant, thread: Thread, items: list[StoredItem], owner: str) -> None:
    """Add items of no response to a thread, whose new end is then free to be continued."""
    append(mine, thread, items, owner)
    thread.tip = thread.length


def remove(mine: Tenant, response: Response) -> None:
    """Remove a response with its items, its key, and the threads that nothing needs any more.

    What joined a conversation is that one's, if there is one still.
    """
    del mine.responses[response.id]
    if response.key is not None:
        del mine.keys[response.key]
    forget_asked(mine, response.id)
    thread = response.thread
    if thread.writer == response.id:
        thread.writer = None
    kept = response.output_end is not None and response.conversation in mine.conversations
    for position in range(response.input_start, response.end):
        if position in thread.dropped or not kept:
            _take_out(mine, thread, position)
    prune(mine, thread)


def drop(mine: Tenant, end: ThreadPoint, item_id: str) -> bool:
    """Take the items of an id out of what precedes a point; True if there was one.

    A response that one came with still shows it.
    """
    found = [
        (thread, position)
        for thread, position in _members(mine, end)
        if thread.items[position].id == item_id
    ]
    for thread, position in found:
        if thread.owners[position] in mine.responses:
            _forget(mine, thread.items[position])
            thread.dropped.add(position)
        else:
            _take_out(mine, thread, position)
    return bool(found)


def conversation_items(mine: Tenant, end: ThreadPoint) -> list[StoredItem]:
    """Return what precedes a point and was not dropped, in order."""
    return [thread.items[position] for thread, position in _members(mine, end)]


def history(
    mine: Tenant, end: ThreadPoint, response_id: str = "", *, most: int
) -> list[ReplayItem]:
    """Return everything that precedes a point, in order: of what was dropped, only a response's own.

    Only the newest are read, up to `most` bytes.
    """
    items: list[ReplayItem] = []
    for thread, until in _chain(mine, end):
        own = sorted(
            position
            for position in thread.items
            if position < until
            and (position not in thread.dropped or thread.owners[position] == response_id)
        )
        items[:0] = [_replayed(thread, position) for position in own]
    return _read(items, most)


def items_at(mine: Tenant, end: ThreadPoint, positions: list[int]) -> dict[int, StoredItem]:
    """Return those items of what precedes a point that stand at these positions."""
    if end.thread_id not in mine.threads:
        return {}
    return {
        position: thread.items[position]
        for thread, until in _chain(mine, end)
        for position in positions
        if position < until and position in thread.items
    }


def new_thread(mine: Tenant, after: ThreadPoint | None, root: str | None = None) -> Thread:
    """Begin a thread, of the family `root` if that is given, or a branch."""
    thread_id = f"thr_{secrets.token_hex(12)}"
    begun = root if root is not None else thread_id
    root_id = begun if after is None else mine.threads[after.thread_id].root_id
    start = 0 if after is None else after.position
    thread = Thread(thread_id, root_id, after, tip=start, length=start)
    mine.threads[thread_id] = thread
    return thread


def prune(mine: Tenant, thread: Thread) -> None:
    """Remove a thread that nothing hangs on, with what is left in it, and then its parent likewise."""
    needed = {response.thread.id for response in mine.responses.values()}
    needed |= {each.parent.thread_id for each in mine.threads.values() if each.parent}
    needed |= {each.end.thread_id for each in mine.conversations.values()}
    if thread.id not in needed:
        for position in list(thread.items):
            _take_out(mine, thread, position)
        del mine.threads[thread.id]
        if thread.parent is not None:
            prune(mine, mine.threads[thread.parent.thread_id])


def _claim(mine: Tenant, after: ThreadPoint | None) -> Thread | None:
    """Return the thread that `after` is the tip of, unless a response is being written there."""
    thread = None if after is None else mine.threads[after.thread_id]
    if after is None or thread is None:
        return None
    return thread if thread.writer is None and thread.tip == after.position else None


def _take_out(mine: Tenant, thread: Thread, position: int) -> None:
    item = thread.items.pop(position)
    if position not in thread.dropped:
        _forget(mine, item)


def _forget(mine: Tenant, item: StoredItem) -> None:
    same_id = mine.items[item.id]
    # By identity: equal items may have come with other responses.
    del same_id[next(at for at, other in enumerate(same_id) if other is item)]
    if not same_id:
        del mine.items[item.id]


def _members(mine: Tenant, end: ThreadPoint) -> list[tuple[Thread, int]]:
    """Return the places of what precedes a point and was not dropped, in order."""
    found: list[tuple[Thread, int]] = []
    for thread, until in _chain(mine, end):
        own = sorted(p for p in thread.items if p < until and p not in thread.dropped)
        found[:0] = [(thread, position) for position in own]
    return found


def _replayed(thread: Thread, position: int) -> ReplayItem:
    item = thread.items[position]
    return ReplayItem(item.type, item.call_id, item.replay, position in thread.outputs, position)


def _read(items: list[ReplayItem], most: int) -> list[ReplayItem]:
    """Return items, of which only the newest have their bytes, up to `most`."""
    read, size = [], 0
    for item in reversed(items):
        length = 0 if item.replay is None else len(item.replay)
        size += length
        fits = size <= most
        read.append(item if fits else msgspec.structs.replace(item, replay=None, unread=length))
    return read[::-1]


def _chain(mine: Tenant, end: ThreadPoint) -> Iterator[tuple[Thread, int]]:
    """Yield the thread of `end` and its ancestors, each with the position where its part ends."""
    point: ThreadPoint | None = end
    until = end.position
    while point is not None:
        until = min(until, point.position)
        thread = mine.threads[point.thread_id]
        yield thread, until
        point = thread.parent
