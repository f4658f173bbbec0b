"""What the memory store keeps of a tenant: threads, their items, responses; and how they change."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TypeVar

from engine.ports import (
    EventBatch,
    NewResponse,
    Order,
    ReplayItem,
    StoredItem,
    StoredResponse,
    ThreadPoint,
)
from storage.limits import unknown_cursor

_T = TypeVar("_T")


@dataclass
class Thread:
    """An append-only list of items that continues `parent` (None for the first of a family).

    `tip` is the position that a continuation may take over while no response writes (`writer`);
    `length` is the next free position. Positions are never used twice, so that what was forked from
    an abandoned response does not see what came after it.
    """

    id: str
    root_id: str
    parent: ThreadPoint | None
    tip: int
    length: int
    writer: str | None = None
    items: dict[int, StoredItem] = field(default_factory=dict)
    outputs: set[int] = field(default_factory=set)
    """The positions that hold output of a response; the others hold input."""


@dataclass
class Run:
    """Who runs an unfinished response; `owner` is None while it waits in the queue."""

    owner: str | None
    expires_at: float
    token: int
    attempts: int
    queued_at: int
    cancel: bool = False


@dataclass
class Response:
    """One response; its input is `thread[input_start:output_start]`, its output what follows."""

    id: str
    model: str
    status: str
    head: bytes
    thread: Thread
    input_start: int
    output_start: int
    new: NewResponse
    expires_at: float | None
    run: Run | None
    output_end: int | None = None
    finished_by: int | None = None
    """The token of the lease that finished it."""
    events: dict[int, EventBatch] = field(default_factory=dict)

    @property
    def end(self) -> int:
        return self.output_start if self.output_end is None else self.output_end

    @property
    def input_positions(self) -> range:
        return range(self.input_start, self.output_start)

    @property
    def output_positions(self) -> range:
        return range(self.output_start, self.end)


@dataclass
class Tenant:
    """Everything of one tenant."""

    threads: dict[str, Thread] = field(default_factory=dict)
    responses: dict[str, Response] = field(default_factory=dict)  # in order of creation
    items: dict[str, list[StoredItem]] = field(default_factory=dict)  # by id, newest last
    keys: dict[str, tuple[str, bytes]] = field(default_factory=dict)
    """Response id and digest, by Idempotency-Key."""


def claim_tip(mine: Tenant, after: ThreadPoint | None) -> Thread | None:
    """Return the thread that `after` is the tip of, unless a response is being written there."""
    thread = None if after is None else mine.threads.get(after.thread_id)
    if after is None or thread is None:
        return None
    return thread if thread.writer is None and thread.tip == after.position else None


def branch(mine: Tenant, after: ThreadPoint | None) -> Thread:
    """Start a thread at a point of another, or a new family."""
    thread_id = f"thr_{secrets.token_hex(12)}"
    parent = None if after is None else mine.threads.get(after.thread_id)
    start = 0 if after is None else after.position
    thread = Thread(
        thread_id, parent.root_id if parent else thread_id, after, tip=start, length=start
    )
    mine.threads[thread_id] = thread
    return thread


def append_items(mine: Tenant, thread: Thread, items: list[StoredItem]) -> None:
    """Put items at the end of a thread."""
    for position, item in enumerate(items, start=thread.length):
        thread.items[position] = item
        mine.items.setdefault(item.id, []).append(item)
    thread.length += len(items)


def remove(mine: Tenant, response: Response) -> None:
    """Remove a response with its items and its key."""
    del mine.responses[response.id]
    key = response.new.idempotency
    if key is not None:
        mine.keys.pop(key.key, None)
    thread = response.thread
    if thread.writer == response.id:
        thread.writer = None
    for position in range(response.input_start, response.end):
        item = thread.items.pop(position)
        same_id = mine.items[item.id]
        # By identity: equal items may have come with other responses.
        del same_id[next(at for at, other in enumerate(same_id) if other is item)]
        if not same_id:
            del mine.items[item.id]


def history(mine: Tenant, end: ThreadPoint) -> list[ReplayItem]:
    """Return the items before a point, in order, as the model is sent them."""
    items: list[ReplayItem] = []
    for thread, until in _chain(mine, end):
        own = sorted(position for position in thread.items if position < until)
        items[:0] = [_replayed(thread, position) for position in own]
    return items


def _replayed(thread: Thread, position: int) -> ReplayItem:
    item = thread.items[position]
    return ReplayItem(item.type, item.call_id, item.replay, position in thread.outputs)


def _chain(mine: Tenant, end: ThreadPoint) -> Iterator[tuple[Thread, int]]:
    """Yield the thread of `end` and its ancestors, each with the position where its part ends."""
    point: ThreadPoint | None = end
    until = end.position
    while point is not None and point.thread_id in mine.threads:
        until = min(until, point.position)
        thread = mine.threads[point.thread_id]
        yield thread, until
        point = thread.parent


def stored(response: Response) -> StoredResponse:
    """Return a response as it is read back."""
    items = response.thread.items
    output = [items[position].item for position in response.output_positions]
    return StoredResponse(response.id, response.status, response.head, output)


def ordered(found: list[_T], order: Order) -> list[_T]:
    """Return what is oldest first in the order asked for."""
    return found if order == "asc" else found[::-1]


def past(found: list[_T], ids: list[str], after: str) -> list[_T]:
    """Return what follows a cursor; `InvalidRequest` if it is not in the list."""
    if after not in ids:
        raise unknown_cursor(after)
    # The last of equal ids: a client that follows its cursor always gets further.
    last = len(ids) - 1 - ids[::-1].index(after)
    return found[last + 1 :]


def remove_empty_threads(mine: Tenant) -> None:
    """Remove threads in which nothing is and on which nothing hangs."""
    while True:
        used = {response.thread.id for response in mine.responses.values()}
        used |= {t.parent.thread_id for t in mine.threads.values() if t.parent is not None}
        empty = [t.id for t in mine.threads.values() if not t.items and t.id not in used]
        if not empty:
            return
        for thread_id in empty:
            del mine.threads[thread_id]
