"""What is stored, as values. Payloads are the bytes of JSON documents and travel unparsed.

The API's strings may hold what Postgres' `jsonb` refuses, and nothing below the engine looks inside.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from engine.ports.approvals import Answer, AskedApproval

Order = Literal["asc", "desc"]


class StoredItem(msgspec.Struct, frozen=True):
    """One item of a thread.

    `item` is the JSON that the API shows; `replay` is the JSON that a later turn sends to the model
    (one item, or several joined by a comma), None where nothing is sent. `call_id` is set on calls
    and on their outputs, so that they can be paired without parsing; likewise on a request for consent and
    its answer, and on a list of tools, which it tells from another (`engine.context.listed`).
    """

    id: str
    type: str
    item: bytes
    replay: bytes | None
    call_id: str | None = None


class ReplayItem(msgspec.Struct, frozen=True):
    """What a continuation needs of an item: its kind, its pairing and its upstream bytes.

    `output` tells a response's output from its input. `position` tells it from all others of its history;
    its id does not, because clients may repeat ids (`ResponseStore.read_items`). `unread` is 0, or how many
    bytes `replay` has where it was left out: a store reads those of the newest items, up to a bound (X5).
    """

    type: str
    call_id: str | None
    replay: bytes | None
    output: bool
    position: int = 0
    unread: int = 0


class ThreadPoint(msgspec.Struct, frozen=True):
    """A place in a thread: everything of `thread_id` before `position` (and its ancestors) precedes it."""

    thread_id: str
    position: int


class Context(msgspec.Struct, frozen=True):
    """The history that ends with a response: its items in order, and where a continuation goes.

    `status` is the status of that response; `root_id` is what all threads of its tree share, over
    branches and deletions (`engine.affinity`).
    """

    status: str
    end: ThreadPoint
    root_id: str
    items: list[ReplayItem]


class EventBatch(msgspec.Struct, frozen=True):
    """Consecutive events of one stream: `frames` are the whole SSE frames numbered `first` to `last`."""

    first: int
    last: int
    frames: bytes


class Idempotency(msgspec.Struct, frozen=True):
    """A client's `Idempotency-Key` and the digest of the request that it was sent with."""

    key: str
    digest: bytes


class NewResponse(msgspec.Struct, frozen=True, kw_only=True):
    """An accepted request: what is written before the model's first token is released.

    `head` is the response object as JSON without its `output` key; its status is that of the row:
    `queued` where `queued` is set, else `in_progress`. `created_at` is in Unix seconds. `after` is the
    point that it continues (None starts a new thread, whose tree is then known by `root`; None is
    the thread's own id).

    A response that is not queued belongs to `worker` for `lease_seconds` without renewal. A queued one
    belongs to nobody until `RunStore.claim` hands it out. `work` is what another worker needs to run it
    again (the engine's own JSON). `streamed` says that it has an event log, of which `events` are the
    first ones, if any. `keep_seconds` is how long it is kept (None: for ever), counted from creation.
    `answers` are those to requests for consent that it takes.

    A response of a conversation has its id and, as `seen`, the `change` of the place that it continues;
    `after` is that place then.
    """

    tenant: str
    id: str
    model: str
    created_at: int
    head: bytes
    input: list[StoredItem]
    worker: str
    lease_seconds: float
    after: ThreadPoint | None = None
    root: str | None = None
    previous_response_id: str | None = None
    conversation: str | None = None
    seen: str = ""
    background: bool = False
    queued: bool = False
    streamed: bool = False
    work: bytes = b""
    events: EventBatch | None = None
    idempotency: Idempotency | None = None
    keep_seconds: float | None = None
    answers: tuple[Answer, ...] = ()


class Lease(msgspec.Struct, frozen=True):
    """The right to finish a response: `token` fences off an owner whose lease was taken over."""

    tenant: str
    response_id: str
    token: int


class FinishedResponse(msgspec.Struct, frozen=True):
    """The terminal state of a response: written whole, in one transaction, or not at all.

    `events` is what of its event log is not yet written, the terminal event being the last; None where
    it has no log. `asked` are the requests for consent in its output. `joins`: input and output become items
    of its conversation, if it has one.
    """

    lease: Lease
    status: str
    head: bytes
    output: list[StoredItem]
    events: EventBatch | None = None
    asked: tuple[AskedApproval, ...] = ()
    joins: bool = True


class LoggedEvents(msgspec.Struct, frozen=True):
    """A part of an event log: `batches` in order, the first of which may start before what was asked.

    `streamed` is False for a response that has no log. `status` is the response's own; once it is
    terminal and `more` is False, the last batch ends with the terminal event.
    """

    status: str
    streamed: bool
    batches: list[EventBatch]
    more: bool


class Claim(msgspec.Struct, frozen=True):
    """An unfinished response that was handed to a worker, with the lease under which it runs it.

    `attempts` counts the runs, this one included. `cancel` says that somebody asked for its end. `head`
    is its object as it was accepted, `work` what it was accepted with. `fresh` says that it was
    waiting in the queue and not taken from a worker whose lease ran out.
    """

    lease: Lease
    attempts: int
    background: bool
    streamed: bool
    cancel: bool
    fresh: bool
    head: bytes
    work: bytes


class CancelAsked(msgspec.Struct, frozen=True):
    """What asking for a cancel met: the status of the response, and the claim if it was still queued.

    Whoever gets the claim ends the response; otherwise its worker learns of it by `RunStore.cancelled`.
    """

    status: str
    claim: Claim | None = None


class StoredResponse(msgspec.Struct, frozen=True):
    """A response as read back: `head` is the object without `output`, `output` its items in order."""

    id: str
    status: str
    head: bytes
    output: list[bytes]


class Page(msgspec.Struct, frozen=True):
    """One page of a list, in the order asked for; `items` are JSON documents."""

    items: list[bytes]
    ids: list[str]
    has_more: bool


class ResponsePage(msgspec.Struct, frozen=True):
    """One page of responses, in the order asked for."""

    responses: list[StoredResponse]
    has_more: bool
