"""Responses in the memory of one process. It keeps the rules that the Postgres store keeps."""

from __future__ import annotations

from collections.abc import Callable

from engine.errors import AlreadyAccepted
from engine.ports import (
    Context,
    FinishedResponse,
    Lease,
    NewResponse,
    Order,
    Page,
    ResponsePage,
    StoredItem,
    StoredResponse,
    ThreadPoint,
)
from storage.limits import check_finished, check_new, duplicate_response, lease_lost
from storage.memory.threads import (
    Response,
    Run,
    Tenant,
    append_items,
    branch,
    claim_tip,
    history,
    ordered,
    past,
    remove,
    stored,
)


class MemoryResponses:
    """`engine.ports.ResponseStore` without a database; atomic because no method ever waits."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._tenants: dict[str, Tenant] = {}
        self._count = 0

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
            items=history(mine, end),
        )

    async def accept(self, new: NewResponse) -> Lease:
        """Write response, input, run and first events, and take the lease.

        Raises `Conflict` for an id that exists, `AlreadyAccepted` for an Idempotency-Key that is in
        use, `InvalidRequest` for names that cannot be stored.
        """
        check_new(new)
        mine = self._tenants.setdefault(new.tenant, Tenant())
        if new.idempotency is not None and new.idempotency.key in mine.keys:
            raise AlreadyAccepted(*mine.keys[new.idempotency.key])
        if new.id in mine.responses:
            raise duplicate_response(new.id)
        thread = claim_tip(mine, new.after) or branch(mine, new.after)
        start = thread.length
        thread.writer = new.id
        append_items(mine, thread, new.input)
        response = Response(
            id=new.id,
            model=new.model,
            status="queued" if new.queued else "in_progress",
            head=new.head,
            thread=thread,
            input_start=start,
            output_start=thread.length,
            new=new,
            expires_at=None if new.keep_seconds is None else self._clock() + new.keep_seconds,
            run=self._first_run(new),
        )
        mine.responses[new.id] = response
        if new.events is not None:
            response.events[new.events.first] = new.events
        if new.idempotency is not None:
            mine.keys[new.idempotency.key] = (new.id, new.idempotency.digest)
        return Lease(new.tenant, new.id, 0 if new.queued else 1)

    def _first_run(self, new: NewResponse) -> Run:
        self._count += 1
        if new.queued:
            return Run(None, 0.0, token=0, attempts=0, queued_at=self._count)
        expires = self._clock() + new.lease_seconds
        return Run(new.worker, expires, token=1, attempts=1, queued_at=self._count)

    async def abandon(self, lease: Lease) -> None:
        """Remove a response that the client never heard of; no-op if the lease is lost."""
        response = self._held(lease)
        if response is not None:
            remove(self._tenants[lease.tenant], response)

    async def finish(self, finished: FinishedResponse, *, again: bool = False) -> None:
        """Write output, status, head and the log's tail; raises `LeaseLost` for a stale token."""
        check_finished(finished)
        lease = finished.lease
        mine, response = self._find(lease.tenant, lease.response_id)
        if again and response is not None and response.finished_by == lease.token:
            return
        if response is None or self._held(lease) is None:
            raise lease_lost(lease)
        thread = response.thread
        thread.outputs.update(range(thread.length, thread.length + len(finished.output)))
        append_items(mine, thread, finished.output)
        thread.tip, thread.writer = thread.length, None
        response.status, response.head = finished.status, finished.head
        response.output_end = thread.length
        response.run, response.finished_by = None, lease.token
        if finished.events is not None:
            response.events[finished.events.first] = finished.events

    async def get(self, tenant: str, response_id: str) -> StoredResponse | None:
        """Return the response, or None."""
        _, response = self._find(tenant, response_id)
        return None if response is None else stored(response)

    async def delete(self, tenant: str, response_id: str) -> bool:
        """Remove the response and its items; True if there was one (rule P7)."""
        mine, response = self._find(tenant, response_id)
        if response is None:
            return False
        remove(mine, response)
        return True

    async def list_responses(
        self, tenant: str, *, limit: int, after: str | None, order: Order, model: str | None
    ) -> ResponsePage:
        """Return a page by creation; `InvalidRequest` (param `after`) for an unknown cursor."""
        mine = self._tenants.get(tenant, Tenant())
        found = ordered(list(mine.responses.values()), order)
        if after is not None:
            found = past(found, [response.id for response in found], after)
        found = [response for response in found if model is None or response.model == model]
        return ResponsePage(
            responses=[stored(response) for response in found[:limit]], has_more=len(found) > limit
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
        found = ordered([thread.items[p] for p in response.input_positions], order)
        if after is not None:
            found = past(found, [item.id for item in found], after)
        page = found[:limit]
        return Page(
            items=[item.item for item in page],
            ids=[item.id for item in page],
            has_more=len(found) > limit,
        )

    async def find_items(self, tenant: str, item_ids: list[str]) -> dict[str, StoredItem]:
        """Return the newest stored item for each id that the tenant has (for `item_reference`)."""
        items = self._tenants.get(tenant, Tenant()).items
        return {item_id: items[item_id][-1] for item_id in item_ids if item_id in items}

    def _find(self, tenant: str, response_id: str) -> tuple[Tenant, Response | None]:
        mine = self._tenants.get(tenant, Tenant())
        return mine, mine.responses.get(response_id)

    def _held(self, lease: Lease) -> Response | None:
        """Return the response if the lease still entitles to it."""
        _, response = self._find(lease.tenant, lease.response_id)
        if response is None or response.run is None or response.run.owner is None:
            return None
        return response if response.run.token == lease.token else None
