"""What the memory store keeps: tenants, their threads and responses, and the runs of these."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator
from dataclasses import dataclass, field

from engine.errors import ConversationMoved
from engine.ports import (
    Claim,
    EventBatch,
    Idempotency,
    Lease,
    NewResponse,
    StoredConversation,
    StoredItem,
    ThreadPoint,
)


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
    owners: dict[int, str] = field(default_factory=dict)
    """The response, or the conversation, that each item came with."""
    dropped: set[int] = field(default_factory=set)
    """The positions of items that were taken out of their conversation."""


@dataclass
class Conversation:
    """A name for a place; `change` is what brought it there: a turn's response, or an addition."""

    id: str
    end: ThreadPoint
    change: str
    metadata: bytes
    created_at: int

    @property
    def stored(self) -> StoredConversation:
        """The conversation as it is read back."""
        return StoredConversation(self.id, self.created_at, self.metadata)


@dataclass
class Run:
    """Who makes a response that is not finished; `owner` is None while it waits in the queue.

    `queued_at` and `expires` are seconds of the store's clock; `number` tells what came first.
    """

    number: int
    background: bool
    work: bytes
    queued_at: float
    owner: str | None = None
    expires: float = 0.0
    token: int = 0
    attempts: int = 0
    cancel: bool = False


@dataclass
class Response:
    """A response and its stretch of a thread; `run` is None once it is finished."""

    tenant: str
    id: str
    model: str
    status: str
    head: bytes
    thread: Thread
    input_start: int
    output_start: int
    run: Run | None
    streamed: bool
    key: str | None
    expires: float | None
    conversation: str | None = None
    output_end: int | None = None
    finished_by: int | None = None
    log: list[EventBatch] = field(default_factory=list)

    @property
    def end(self) -> int:
        """Where its part of the thread ends."""
        return self.output_start if self.output_end is None else self.output_end

    @property
    def input_positions(self) -> range:
        """The positions of its input."""
        return range(self.input_start, self.output_start)

    @property
    def output_positions(self) -> range:
        """The positions of its output."""
        return range(self.output_start, self.end)

    def held_by(self, lease: Lease) -> Run | None:
        """Return the run if the lease is still good."""
        run = self.run
        return run if run is not None and run.owner and run.token == lease.token else None

    def log_events(self, batch: EventBatch) -> None:
        """Add a batch in its place; of two that begin alike the one that reaches further counts."""
        place = bisect_left(self.log, batch.first, key=lambda each: each.first)
        if place == len(self.log) or self.log[place].first != batch.first:
            self.log.insert(place, batch)
        elif self.log[place].last < batch.last:
            self.log[place] = batch


@dataclass
class Approval:
    """A request for consent: the response that it goes with, and the one that took its answer."""

    response_id: str
    request: bytes | None
    answered_by: str | None = None


@dataclass
class Tenant:
    """Everything of one tenant."""

    threads: dict[str, Thread] = field(default_factory=dict)
    responses: dict[str, Response] = field(default_factory=dict)  # in order of creation
    items: dict[str, list[StoredItem]] = field(default_factory=dict)  # by id, newest last
    keys: dict[str, tuple[str, Idempotency]] = field(default_factory=dict)  # with the response's id
    approvals: dict[str, Approval] = field(default_factory=dict)  # by the request's id
    conversations: dict[str, Conversation] = field(default_factory=dict)  # in order of creation

    def conversation_at(self, name: str, end: ThreadPoint | None, change: str) -> Conversation:
        """Return a conversation that is still at a place; raises `ConversationMoved`."""
        found = self.conversations.get(name)
        if found is None or (found.end, found.change) != (end, change):
            raise ConversationMoved(name)
        return found

    def key_of(self, new: NewResponse) -> tuple[str, Idempotency] | None:
        """Return the response, and the key, that the request's Idempotency-Key already belongs to."""
        return None if new.idempotency is None else self.keys.get(new.idempotency.key)


class Tenants:
    """All tenants, and their runs."""

    def __init__(self) -> None:
        self._tenants: dict[str, Tenant] = {}
        self._runs = 0

    def of(self, tenant: str) -> Tenant:
        """Return what a tenant has; an empty one that is not kept if it has nothing."""
        return self._tenants.get(tenant, Tenant())

    def kept(self, tenant: str) -> Tenant:
        """Return what a tenant has, to be written to."""
        return self._tenants.setdefault(tenant, Tenant())

    def forget(self, tenant: str) -> None:
        """Remove what is left of a tenant."""
        self._tenants.pop(tenant, None)

    def find(self, tenant: str, response_id: str) -> Response | None:
        """Return a response, or None."""
        return self.of(tenant).responses.get(response_id)

    def held(self, lease: Lease) -> tuple[Response, Run] | None:
        """Return what a lease is for, or None if it is lost."""
        response = self.find(lease.tenant, lease.response_id)
        run = None if response is None else response.held_by(lease)
        return None if response is None or run is None else (response, run)

    def responses(self) -> Iterator[Response]:
        """Yield the responses of all tenants."""
        for tenant in self._tenants.values():
            yield from tenant.responses.values()

    def runs(self) -> list[tuple[Response, Run]]:
        """Return what is not finished."""
        return [(each, each.run) for each in self.responses() if each.run is not None]

    def next_number(self) -> int:
        """Return a number above all that were returned before."""
        self._runs += 1
        return self._runs


def lease_of(response: Response, run: Run) -> Lease:
    """Return the lease under which a response is run now."""
    return Lease(response.tenant, response.id, run.token)


def take(response: Response, run: Run, worker: str, expires: float) -> Claim:
    """Hand a run to a worker; whoever had it before is fenced off."""
    fresh = run.owner is None
    run.owner, run.expires = worker, expires
    run.token += 1
    run.attempts += 1
    if response.status == "queued":
        response.status = "in_progress"
    return Claim(
        lease=lease_of(response, run),
        attempts=run.attempts,
        background=run.background,
        streamed=response.streamed,
        cancel=run.cancel,
        fresh=fresh,
        head=response.head,
        work=run.work,
    )
