"""Responses in the memory of one process: for tests and for trying Holdfast out.

Nothing survives the process. It keeps the rules that the Postgres store keeps:
`tests/contract/response_store.py` holds both to them.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TypeVar

from engine.errors import LeaseLost
from engine.ports import (
    Context,
    FinishedResponse,
    Lease,
    NewResponse,
    Order,
    Page,
    ReplayItem,
    ResponsePage,
    StoredItem,
    StoredResponse,
    ThreadPoint,
)
from storage.limits import (
    check_finished,
    check_new,
    duplicate_response,
    unknown_cursor,
)

_T = TypeVar("_T")


@dataclass
class _Thread:
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
class _Response:
    id: str
    model: str
    status: str
    head: bytes
    thread: _Thread
    input_start: int
    output_start: int
    output_end: int | None = None
    token: int = 1

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
class _Tenant:
    threads: dict[str, _Thread] = field(default_factory=dict)
    responses: dict[str, _Response] = field(default_factory=dict)  # in order of creation
    items: dict[str, list[StoredItem]] = field(default_factory=dict)  # by id, newest last


class MemoryResponseStore:
    """`engine.ports.ResponseStore` without a database; atomic because no method ever waits."""

    def __init__(self) -> None:
        self._tenants: dict[str, _Tenant] = {}

    async def load_context(self, tenant: str, response_id: str) -> Context | None:
        """Return the history that ends with the response; None if the tenant has no such id."""
        mine, response = self._find(tenant, response_id)
        if response is None:
            return None
        thread = response.thread
        end = ThreadPoint(thread.id, response.end)
        return Context(
            status=response.status,
            end=end,
            root_id=thread.root_id,
            items=_history(mine, end),
        )

    async def accept(self, new: NewResponse) -> Lease:
        """Write the response row and its input items, and take the lease.

        Raises `Conflict` for an id that exists, `InvalidRequest` for names that cannot be stored.
        """
        check_new(new)
        mine = self._tenants.setdefault(new.tenant, _Tenant())
        if new.id in mine.responses:
            raise duplicate_response(new.id)
        thread = _claim(mine, new.after) or _branch(mine, new.after)
        start = thread.length
        thread.writer = new.id
        _append(mine, thread, new.input)
        response = _Response(
            new.id, new.model, "in_progress", new.head, thread, start, thread.length
        )
        mine.responses[new.id] = response
        return Lease(new.tenant, new.id, response.token)

    async def abandon(self, lease: Lease) -> None:
        """Remove a response that the client never heard of; no-op if the lease is lost."""
        mine, response = self._find(lease.tenant, lease.response_id)
        if response is not None and _holds(response, lease):
            _remove(mine, response)

    async def finish(self, finished: FinishedResponse, *, again: bool = False) -> None:
        """Write output, status and head; raises `LeaseLost` for a stale token."""
        check_finished(finished)
        lease = finished.lease
        mine, response = self._find(lease.tenant, lease.response_id)
        if again and response is not None and _finished_by(response, lease):
            return
        if response is None or not _holds(response, lease):
            raise LeaseLost(f"The lease of response '{lease.response_id}' is lost.")
        thread = response.thread
        thread.outputs.update(range(thread.length, thread.length + len(finished.output)))
        _append(mine, thread, finished.output)
        thread.tip, thread.writer = thread.length, None
        response.status, response.head = finished.status, finished.head
        response.output_end = thread.length

    async def get(self, tenant: str, response_id: str) -> StoredResponse | None:
        """Return the response, or None."""
        _, response = self._find(tenant, response_id)
        return None if response is None else _stored(response)

    async def delete(self, tenant: str, response_id: str) -> bool:
        """Remove the response and its items; True if there was one (rule P7)."""
        mine, response = self._find(tenant, response_id)
        if response is None:
            return False
        _remove(mine, response)
        return True

    async def list_responses(
        self, tenant: str, *, limit: int, after: str | None, order: Order, model: str | None
    ) -> ResponsePage:
        """Return a page by creation; `InvalidRequest` (param `after`) for an unknown cursor."""
        mine = self._tenants.get(tenant, _Tenant())
        found = _ordered(list(mine.responses.values()), order)
        if after is not None:
            found = _past(found, [response.id for response in found], after)
        found = [response for response in found if model is None or response.model == model]
        return ResponsePage(
            responses=[_stored(response) for response in found[:limit]], has_more=len(found) > limit
        )

    async def list_input_items(
        self, tenant: str, response_id: str, *, limit: int, after: str | None, order: Order
    ) -> Page | None:
        """Return a page of the response's own input, or None if there is no such response.

        Raises `InvalidRequest` (param `after`) for an unknown cursor.
        """
        _, response = self._find(tenant, response_id)
        if response is None:
            return None
        thread = response.thread
        found = _ordered([thread.items[p] for p in response.input_positions], order)
        if after is not None:
            found = _past(found, [item.id for item in found], after)
        page = found[:limit]
        return Page(
            items=[item.item for item in page],
            ids=[item.id for item in page],
            has_more=len(found) > limit,
        )

    async def find_items(self, tenant: str, item_ids: list[str]) -> dict[str, StoredItem]:
        """Return the newest stored item for each id that the tenant has (for `item_reference`)."""
        items = self._tenants.get(tenant, _Tenant()).items
        return {item_id: items[item_id][-1] for item_id in item_ids if item_id in items}

    def _find(self, tenant: str, response_id: str) -> tuple[_Tenant, _Response | None]:
        mine = self._tenants.get(tenant, _Tenant())
        return mine, mine.responses.get(response_id)


def _holds(response: _Response, lease: Lease) -> bool:
    return response.token == lease.token and response.output_end is None


def _finished_by(response: _Response, lease: Lease) -> bool:
    return response.token == lease.token and response.output_end is not None


def _claim(mine: _Tenant, after: ThreadPoint | None) -> _Thread | None:
    """Return the thread that `after` is the tip of, unless a response is being written there."""
    thread = None if after is None else mine.threads.get(after.thread_id)
    if after is None or thread is None:
        return None
    return thread if thread.writer is None and thread.tip == after.position else None


def _branch(mine: _Tenant, after: ThreadPoint | None) -> _Thread:
    thread_id = f"thr_{secrets.token_hex(12)}"
    parent = None if after is None else mine.threads.get(after.thread_id)
    start = 0 if after is None else after.position
    thread = _Thread(
        thread_id, parent.root_id if parent else thread_id, after, tip=start, length=start
    )
    mine.threads[thread_id] = thread
    return thread


def _append(mine: _Tenant, thread: _Thread, items: list[StoredItem]) -> None:
    for position, item in enumerate(items, start=thread.length):
        thread.items[position] = item
        mine.items.setdefault(item.id, []).append(item)
    thread.length += len(items)


def _remove(mine: _Tenant, response: _Response) -> None:
    del mine.responses[response.id]
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


def _history(mine: _Tenant, end: ThreadPoint) -> list[ReplayItem]:
    items: list[ReplayItem] = []
    for thread, until in _chain(mine, end):
        own = sorted(position for position in thread.items if position < until)
        items[:0] = [_replayed(thread, position) for position in own]
    return items


def _replayed(thread: _Thread, position: int) -> ReplayItem:
    item = thread.items[position]
    return ReplayItem(item.type, item.call_id, item.replay, position in thread.outputs)


def _chain(mine: _Tenant, end: ThreadPoint) -> Iterator[tuple[_Thread, int]]:
    """Yield the thread of `end` and its ancestors, each with the position where its part ends."""
    point: ThreadPoint | None = end
    until = end.position
    while point is not None and point.thread_id in mine.threads:
        until = min(until, point.position)
        thread = mine.threads[point.thread_id]
        yield thread, until
        point = thread.parent


def _stored(response: _Response) -> StoredResponse:
    items = response.thread.items
    output = [items[position].item for position in response.output_positions]
    return StoredResponse(response.id, response.status, response.head, output)


def _ordered(found: list[_T], order: Order) -> list[_T]:
    return found if order == "asc" else found[::-1]


def _past(found: list[_T], ids: list[str], after: str) -> list[_T]:
    if after not in ids:
        raise unknown_cursor(after)
    # The last of equal ids: a client that follows its cursor always gets further.
    last = len(ids) - 1 - ids[::-1].index(after)
    return found[last + 1 :]
