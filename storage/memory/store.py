"""The engine's store without a database; each operation is atomic because none of them ever waits.

It keeps the rules that the Postgres store keeps: the suites in `tests/contract` hold both to them.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable

from engine.errors import AlreadyAccepted
from engine.ports import (
    AnswerClaim,
    CancelAsked,
    Claim,
    Context,
    EventBatch,
    FinishedResponse,
    Lease,
    LoggedEvents,
    NewResponse,
    Order,
    Page,
    ResponsePage,
    StoredApproval,
    StoredItem,
    StoredResponse,
    ThreadPoint,
    Waiting,
)
from storage.limits import (
    READS,
    Reads,
    check_finished,
    check_new,
    duplicate_response,
    lost,
    name_of,
    too_long,
)
from storage.memory import approvals
from storage.memory.connectors import MemoryConnectors
from storage.memory.conversations import MemoryConversations
from storage.memory.pages import batches_of, ordered, past, whole
from storage.memory.prompts import MemoryPrompts
from storage.memory.records import Response, Run, Tenants, lease_of, take
from storage.memory.threads import append, append_output, history, items_at, place, remove
from storage.memory.vector_stores import MemoryVectorStores


class MemoryStore(MemoryPrompts, MemoryConnectors, MemoryConversations, MemoryVectorStores):
    """`engine.ports.Store` in memory; `clock` gives seconds, for leases and for retention."""

    def __init__(self, clock: Callable[[], float] = time.time, reads: Reads = READS) -> None:
        super().__init__(clock)
        MemoryVectorStores.__init__(self, clock)
        self._tenants = Tenants()
        self._reads = reads

    # -- responses --------------------------------------------------------------------------------

    async def load_context(self, tenant: str, response_id: str) -> Context | None:
        """Return the history that ends with the response; None if the tenant has no such id."""
        response = self._tenants.find(tenant, response_id)
        if response is None:
            return None
        end = ThreadPoint(response.thread.id, response.end)
        return Context(
            status=response.status,
            end=end,
            root_id=response.thread.root_id,
            items=history(self._tenants.of(tenant), end, response_id, most=self._reads.context),
        )

    async def accept(self, new: NewResponse) -> Lease:
        """Write response, input, run and first events, and take the lease.

        Raises `AlreadyAccepted`, `AlreadyAnswered`, `Conflict` for an id that exists, `InvalidRequest` for
        names that cannot be stored, `UnknownPreviousResponse` where the thread to continue is gone,
        `ConversationMoved` where the conversation is not where it was seen.
        """
        check_new(new)
        mine = self._tenants.kept(new.tenant)
        if (known := mine.key_of(new)) is not None:
            raise AlreadyAccepted(known[0], known[1].digest)
        approvals.check_free(mine, new.answers, new.id)
        if new.id in mine.responses:
            raise duplicate_response(new.id)
        if new.conversation is not None:
            mine.conversation_at(new.conversation, new.after, new.seen).change = new.id
        thread = place(mine, new)
        start = thread.length
        thread.writer = new.id
        append(mine, thread, new.input, new.id)
        run = self._new_run(new)
        response = Response(
            tenant=new.tenant,
            id=new.id,
            model=new.model,
            status="queued" if new.queued else "in_progress",
            head=new.head,
            thread=thread,
            input_start=start,
            output_start=thread.length,
            run=run,
            streamed=new.streamed,
            key=None if new.idempotency is None else new.idempotency.key,
            expires=None if new.keep_seconds is None else self._clock() + new.keep_seconds,
            conversation=new.conversation,
        )
        mine.responses[new.id] = response
        if new.idempotency is not None:
            mine.keys[new.idempotency.key] = (new.id, new.idempotency)
        approvals.take(mine, new.answers, new.id)
        if new.events is not None:
            response.log_events(new.events)
        return lease_of(response, run)

    async def abandon(self, lease: Lease) -> None:
        """Remove a response that the client never heard of; no-op if the lease is lost."""
        if (held := self._tenants.held(lease)) is not None:
            mine = self._tenants.of(lease.tenant)
            approvals.free(mine, lease.response_id)
            remove(mine, held[0])

    async def find_key(self, tenant: str, key: str) -> tuple[str, bytes] | None:
        """Return the response and the digest that an Idempotency-Key belongs to, or None."""
        found = self._tenants.of(tenant).keys.get(key)
        return None if found is None else (found[0], found[1].digest)

    async def finish(self, finished: FinishedResponse, *, again: bool = False) -> None:
        """Write output, status, head and the log's tail, and end the run; raises `LeaseLost`."""
        check_finished(finished)
        lease = finished.lease
        known = self._tenants.find(lease.tenant, lease.response_id)
        if again and known is not None and known.finished_by == lease.token:
            return
        response, run = self._held(lease)
        mine = self._tenants.of(lease.tenant)
        append_output(mine, response.thread, finished.output, response.id)
        approvals.ask(mine, finished.asked, response.id)
        response.status, response.head = finished.status, finished.head
        response.output_end = response.thread.length
        response.run, response.finished_by = None, run.token
        if not finished.joins:
            response.conversation = None
        conversation = mine.conversations.get(response.conversation or "")
        if conversation is not None and conversation.change == response.id:
            conversation.end = ThreadPoint(response.thread.id, response.end)
        if finished.events is not None:
            response.log_events(finished.events)

    async def get(self, tenant: str, response_id: str) -> StoredResponse | None:
        """Return the response, or None."""
        response = self._tenants.find(tenant, response_id)
        return None if response is None else _stored(response)

    async def delete(self, tenant: str, response_id: str) -> bool:
        """Remove the response and its items; True if there was one (rule P7)."""
        response = self._tenants.find(tenant, response_id)
        if response is not None:
            remove(self._tenants.of(tenant), response)
        return response is not None

    async def list_responses(
        self, tenant: str, *, limit: int, after: str | None, order: Order, model: str | None
    ) -> ResponsePage:
        """Return a page by creation; `InvalidRequest` (param `after`) for an unknown cursor."""
        found = ordered(list(self._tenants.of(tenant).responses.values()), order)
        found = past(found, [response.id for response in found], after)
        found = [response for response in found if model is None or response.model == model]
        stored = [_stored(response) for response in found]
        sizes = [len(each.head) + sum(map(len, each.output)) for each in stored]
        return ResponsePage(*whole(stored, sizes, limit, self._reads.page))

    async def list_input_items(
        self, tenant: str, response_id: str, *, limit: int, after: str | None, order: Order
    ) -> Page | None:
        """Return a page of the response's own input, or None if there is no such response.

        Raises `InvalidRequest` (param `after`) for an unknown cursor.
        """
        response = self._tenants.find(tenant, response_id)
        if response is None:
            return None
        found = ordered([response.thread.items[p] for p in response.input_positions], order)
        found = past(found, [item.id for item in found], after)
        sizes = [len(item.item) for item in found]
        page, has_more = whole(found, sizes, limit, self._reads.page)
        return Page([item.item for item in page], [item.id for item in page], has_more)

    async def find_items(self, tenant: str, item_ids: list[str]) -> dict[str, StoredItem]:
        """Return the newest stored item for each id that the tenant has (for `item_reference`)."""
        items = self._tenants.of(tenant).items
        found = {item_id: items[item_id][-1] for item_id in item_ids if item_id in items}
        self._check_size(found.values())
        return found

    async def read_items(
        self, tenant: str, end: ThreadPoint, positions: list[int]
    ) -> dict[int, StoredItem]:
        """Return those items of the history that ends at a point, by `ReplayItem.position`."""
        found = items_at(self._tenants.of(tenant), end, positions)
        self._check_size(found.values())
        return found

    def _check_size(self, found: Iterable[StoredItem]) -> None:
        size = sum(max(len(item.item), len(item.replay or b"")) for item in found)
        if size > self._reads.context:
            raise too_long(size, self._reads.context)

    # -- approvals --------------------------------------------------------------------------------

    async def find_approvals(self, tenant: str, ids: list[str]) -> dict[str, StoredApproval]:
        """Return those of these requests that the tenant has."""
        return approvals.found(self._tenants.of(tenant), ids)

    async def take_answers(self, claim: AnswerClaim) -> None:
        """Take answers to stored requests, all or none; raises `AlreadyAnswered`."""
        mine = self._tenants.of(claim.tenant)
        approvals.check_free(mine, claim.answers, claim.by)
        approvals.take_known(mine, claim.answers, claim.by)

    async def free_answers(self, claim: AnswerClaim) -> None:
        """Give back what was taken."""
        approvals.free(self._tenants.of(claim.tenant), claim.by)

    # -- leases -----------------------------------------------------------------------------------

    async def renew(self, leases: list[Lease], lease_seconds: float) -> list[Lease]:
        """Prolong leases from now on; return those that are lost."""
        gone = []
        for lease in leases:
            held = self._tenants.held(lease)
            if held is None:
                gone.append(lease)
            else:
                held[1].expires = self._clock() + lease_seconds
        return gone

    async def claim(
        self, worker: str, lease_seconds: float, *, queued: int, expired: int
    ) -> list[Claim]:
        """Take up to so many queued runs, and up to so many whose lease ran out."""
        now = self._clock()
        ended = [each for each in self._tenants.runs() if each[1].owner and each[1].expires <= now]
        ended.sort(key=lambda each: (each[1].expires, each[1].number))
        chosen = ended[:expired] + self._queue()[:queued]
        return [take(*each, worker, now + lease_seconds) for each in chosen]

    async def inherit(self, worker: str, lease_seconds: float, *, limit: int) -> list[Claim]:
        """Take runs, expired or not, that an earlier life of this very worker left."""
        expires = self._clock() + lease_seconds
        name = name_of(worker)
        left = [
            each
            for each in self._tenants.runs()
            if (owner := each[1].owner) is not None
            and owner != worker
            and (owner == name or owner.startswith(f"{name}#"))
        ]
        return [take(*each, worker, expires) for each in left[:limit]]

    async def release(self, lease: Lease) -> None:
        """Put a run back into the queue, for another worker; no-op if the lease is lost."""
        if (held := self._tenants.held(lease)) is not None:
            run = held[1]
            run.owner = None
            run.token += 1  # whoever had it has it no longer
            run.attempts -= 1

    async def ask_cancel(
        self, tenant: str, response_id: str, worker: str, lease_seconds: float
    ) -> CancelAsked | None:
        """Note that a response shall end; None if there is no such response."""
        response = self._tenants.find(tenant, response_id)
        if response is None:
            return None
        status, run = response.status, response.run
        if run is None:
            return CancelAsked(status)
        run.cancel = True
        if run.owner is not None:
            return CancelAsked(status)
        return CancelAsked(status, take(response, run, worker, self._clock() + lease_seconds))

    async def waiting(self) -> Waiting:
        """Return how long the queues are, over all tenants."""
        queued = sum(run.owner is None for _, run in self._tenants.runs())
        return Waiting(queued, len(list(self._queued())))

    async def cancelled(self, worker: str) -> list[Lease]:
        """Return the leases of this worker whose cancel was asked for."""
        return [
            lease_of(response, run)
            for response, run in self._tenants.runs()
            if run.owner == worker and run.cancel
        ]

    # -- event logs -------------------------------------------------------------------------------

    async def append(self, lease: Lease, batch: EventBatch) -> None:
        """Add events to the log; raises `LeaseLost`. A batch that is already there is not added twice."""
        response, _ = self._held(lease)
        response.log_events(batch)

    async def read_events(
        self, tenant: str, response_id: str, *, after: int, limit: int
    ) -> LoggedEvents | None:
        """Return the events numbered above `after` in about `limit` bytes, at least one batch."""
        response = self._tenants.find(tenant, response_id)
        if response is None:
            return None
        wanted = [batch for batch in response.log if batch.last > after]
        batches = batches_of(wanted, limit)
        return LoggedEvents(
            response.status, response.streamed, batches, more=len(batches) < len(wanted)
        )

    # -- retention --------------------------------------------------------------------------------

    async def remove_expired(self, *, limit: int) -> int:
        """Remove up to `limit` finished responses whose time has come, as `delete` does."""
        now = self._clock()
        old = [
            response
            for response in self._tenants.responses()
            if response.run is None and response.expires is not None and response.expires <= now
        ]
        return self._remove(old[:limit])

    async def remove_tenant(self, tenant: str, *, limit: int) -> int:
        """Remove all that a tenant has registered, and up to `limit` responses, running ones too.

        And as many conversations. Returns how many responses and conversations there were.
        """
        self.forget_connectors(tenant)
        self.forget_prompts(tenant)
        self.forget_vector_stores(tenant)
        self.forget_files(tenant)
        mine = self._tenants.of(tenant)
        named = list(mine.conversations)[:limit]
        count = len(named) + self._remove(list(mine.responses.values())[:limit])
        for name in named:
            await self.delete_conversation(tenant, name)
        if not mine.responses and not mine.conversations:
            self._tenants.forget(tenant)
        return count

    def _remove(self, responses: list[Response]) -> int:
        for response in responses:
            remove(self._tenants.of(response.tenant), response)
        return len(responses)

    def _held(self, lease: Lease) -> tuple[Response, Run]:
        held = self._tenants.held(lease)
        if held is None:
            raise lost(lease)
        return held

    def _new_run(self, new: NewResponse) -> Run:
        now = self._clock()
        run = Run(self._tenants.next_number(), new.background, new.work, queued_at=now)
        if not new.queued:
            run.owner, run.expires = new.worker, now + new.lease_seconds
            run.token = run.attempts = 1
        return run

    def _queue(self) -> list[tuple[Response, Run]]:
        """Return what waits, in the order in which it is handed out: no tenant before its turn."""
        runs = self._tenants.runs()
        load = Counter(each.tenant for each, run in runs if run.owner and run.background)
        places = []
        waiting = [each for each in runs if each[1].owner is None]
        for response, run in sorted(waiting, key=lambda each: (each[1].queued_at, each[1].number)):
            places.append((load[response.tenant], run.queued_at, run.number, response, run))
            load[response.tenant] += 1
        places.sort(key=lambda each: each[:3])
        return [(response, run) for *_, response, run in places]


def _stored(response: Response) -> StoredResponse:
    items = response.thread.items
    output = [items[position].item for position in response.output_positions]
    return StoredResponse(response.id, response.status, response.head, output)
