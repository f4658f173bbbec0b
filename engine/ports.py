"""What the engine needs from the world, as Protocols; adapters live in `storage` and `extproc`.

Everything stored is keyed by tenant first. Payloads are the bytes of JSON documents and travel
through the store unparsed (the API's strings may hold what Postgres' `jsonb` refuses).
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from typing import Literal, Protocol

import msgspec

from engine.answers import Answer

Order = Literal["asc", "desc"]


class StoredItem(msgspec.Struct, frozen=True):
    """One item of a thread.

    `item` is the JSON that the API shows; `replay` is the JSON that a later turn sends to the model
    (one item, or several joined by a comma), None where nothing is sent. `call_id` is set on calls
    and on their outputs, so that they can be paired without parsing.
    """

    id: str
    type: str
    item: bytes
    replay: bytes | None
    call_id: str | None = None


class ReplayItem(msgspec.Struct, frozen=True):
    """What a continuation needs of an item: its kind, its pairing and its upstream bytes.

    `output` tells a response's output from its input.
    """

    type: str
    call_id: str | None
    replay: bytes | None
    output: bool


class ThreadPoint(msgspec.Struct, frozen=True):
    """A place in a thread: everything of `thread_id` before `position` (and its ancestors) precedes it."""

    thread_id: str
    position: int


class Context(msgspec.Struct, frozen=True):
    """The history that ends with a response: its items in order, and where a continuation goes.

    `status` is the status of that response; `root_id` is the id of the oldest ancestor thread (stable
    over branches, used for affinity).
    """

    status: str
    end: ThreadPoint
    root_id: str
    items: list[ReplayItem]


class NewResponse(msgspec.Struct, frozen=True):
    """An accepted request: what is written before the model's first token is released.

    `head` is the response object as JSON without its `output` key. `created_at` is in Unix seconds.
    `after` is the point that it continues (None starts a new thread). `lease_seconds` is how long
    the row belongs to `worker` without renewal.
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
    previous_response_id: str | None = None


class Lease(msgspec.Struct, frozen=True):
    """The right to finish a response: `token` fences off an owner whose lease was taken over."""

    tenant: str
    response_id: str
    token: int


class FinishedResponse(msgspec.Struct, frozen=True):
    """The terminal state of a response: written whole, in one transaction, or not at all."""

    lease: Lease
    status: str
    head: bytes
    output: list[StoredItem]


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


class ResponseStore(Protocol):
    """Responses and the threads that their items live in.

    Every method raises `StorageUnavailable` when the store cannot do its work now; what was
    acknowledged by a return is durable.
    """

    async def load_context(self, tenant: str, response_id: str) -> Context | None:
        """Return the history up to and including the response; None if the tenant has no such id."""
        ...

    async def accept(self, new: NewResponse) -> Lease:
        """Write the response row and its input items, and take the lease (one transaction).

        Continues the thread of `new.after` if that point is its tip, and branches it otherwise.
        """
        ...

    async def abandon(self, lease: Lease) -> None:
        """Remove an accepted response that the client never heard of; no-op if the lease is lost."""
        ...

    async def finish(self, finished: FinishedResponse, *, again: bool = False) -> None:
        """Write output, status and head in one transaction; raises `LeaseLost` for a stale token.

        `again` says that the outcome of an earlier call is unknown: what this very lease has finished
        then stays as it is.
        """
        ...

    async def get(self, tenant: str, response_id: str) -> StoredResponse | None:
        """Return the response, or None."""
        ...

    async def delete(self, tenant: str, response_id: str) -> bool:
        """Remove the response and its items; True if there was one. Descendants stay usable (rule P7)."""
        ...

    async def list_responses(
        self, tenant: str, *, limit: int, after: str | None, order: Order, model: str | None
    ) -> ResponsePage:
        """Return a page by creation; raises `InvalidRequest` (param `after`) for an unknown cursor."""
        ...

    async def list_input_items(
        self, tenant: str, response_id: str, *, limit: int, after: str | None, order: Order
    ) -> Page | None:
        """Return a page of the response's own input, or None if there is no such response.

        Raises `InvalidRequest` (param `after`) for an unknown cursor.
        """
        ...

    async def find_items(self, tenant: str, item_ids: list[str]) -> dict[str, StoredItem]:
        """Return the newest stored item for each id that the tenant has (for `item_reference`)."""
        ...


class ModelAnswer(Protocol):
    """A model server's answer whose status is known and whose body is still to come."""

    status: int
    media_type: str
    """Lower case, without parameters."""
    retry_after: int | None
    """Seconds, from `Retry-After`; None where there is none."""

    def chunks(self) -> AsyncIterator[bytes]:
        """Yield the body as it arrives; raises `UpstreamFailed` when it breaks off or stays silent."""
        ...

    async def read(self, limit: int) -> bytes:
        """Return the body, at most `limit` bytes of it; raises `UpstreamFailed`."""
        ...

    async def finish(self) -> None:
        """Let go of an answer that was read to its terminal event; the connection is kept if it can be."""
        ...

    def close(self) -> None:
        """Let go of the answer; aborts the call at once where the body has not ended."""
        ...


class ModelClient(Protocol):
    """The way to the model server, through Envoy's model listener."""

    async def call(self, body: bytes, headers: Mapping[str, str]) -> ModelAnswer:
        """Send one turn and return when the status is known; raises `UpstreamFailed`."""
        ...


class Reply(Protocol):
    """The client's side of one exchange, as the engine sees it."""

    async def answer(self, answer: Answer) -> None:
        """Send a whole answer; nothing can follow it."""
        ...

    async def open(self) -> None:
        """Start a 200 with an event stream."""
        ...

    async def write(self, frames: bytes) -> None:
        """Send whole events."""
        ...

    async def end(self) -> None:
        """End the event stream."""
        ...


class Clock(Protocol):
    """Unix time in whole seconds."""

    def __call__(self) -> int:
        """Return now."""
        ...
