"""Responses and their threads, as a port."""

from __future__ import annotations

from typing import Protocol

from engine.ports.records import (
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


class ResponseStore(Protocol):
    """Responses and the threads that their items live in.

    Every method raises `StorageUnavailable` when the store cannot do its work now; what was
    acknowledged by a return is durable. What is read is bounded in bytes (rule X5): a page has fewer items
    than were asked for where they are large, but one at least.
    """

    async def load_context(self, tenant: str, response_id: str) -> Context | None:
        """Return the history up to and including the response; None if the tenant has no such id.

        Of a history that is too long to be sent, only the newest items are read (`ReplayItem.unread`).
        """
        ...

    async def accept(self, new: NewResponse) -> Lease:
        """Write response, input, run and first events, and take the lease (one transaction).

        Continues the thread of `new.after` if that point is its tip, and branches it otherwise. The
        lease of a queued response has token 0 and entitles to nothing. Raises `AlreadyAccepted` where
        the tenant's Idempotency-Key is that of a response that there is, `AlreadyAnswered` where one of
        its answers is to a request whose answer was taken (then it takes none),
        `UnknownPreviousResponse` where the thread that it continues was removed meanwhile, and
        `ConversationMoved` where its conversation is not at the place that it saw.
        """
        ...

    async def find_key(self, tenant: str, key: str) -> tuple[str, bytes] | None:
        """Return the response and the digest that an Idempotency-Key belongs to, or None."""
        ...

    async def abandon(self, lease: Lease) -> None:
        """Remove an accepted response that the client never heard of; no-op if the lease is lost.

        Its Idempotency-Key is free again, and the requests for consent that it answered wait again.
        """
        ...

    async def finish(self, finished: FinishedResponse, *, again: bool = False) -> None:
        """Write output, status, head and the log's tail, and end the run, in one transaction.

        A conversation that it joins moves on to its end. Raises `LeaseLost` for a stale token.

        `again` says that the outcome of an earlier call is unknown: what this very lease has finished
        then stays as it is.
        """
        ...

    async def get(self, tenant: str, response_id: str) -> StoredResponse | None:
        """Return the response, or None."""
        ...

    async def delete(self, tenant: str, response_id: str) -> bool:
        """Remove the response and its items; True if there was one. Descendants stay usable (rule P7).

        What joined a conversation that there is stays an item of that.
        """
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
        """Return the newest stored item for each id that the tenant has (for `item_reference`).

        Clients may repeat ids: whoever has an item's history reads it there, by `read_items`. Raises
        `InvalidRequest` (`context_length_exceeded`) where they are more together than can be sent.
        """
        ...

    async def read_items(
        self, tenant: str, end: ThreadPoint, positions: list[int]
    ) -> dict[int, StoredItem]:
        """Return those items of the history that ends at a point, by `ReplayItem.position`.

        What has been removed since, and what is not of that history, is not in it. Raises as `find_items`.
        """
        ...
