"""Short ways to put responses into a store, for tests of stores."""

from __future__ import annotations

from typing import Any

import msgspec

from engine.ports import (
    Context,
    ConversationPlace,
    ConversationStore,
    EventBatch,
    FinishedResponse,
    Lease,
    NewConversation,
    NewResponse,
    ResponseStore,
    Store,
    StoredConversation,
    StoredItem,
    ThreadPoint,
)


def an_item(item_id: str, *, call_id: str | None = None) -> StoredItem:
    """Return an item whose bytes tell it from others; `replay` is its id, so that orders read well."""
    return StoredItem(
        item_id, "message", f'{{"id":"{item_id}"}}'.encode(), item_id.encode(), call_id
    )


def a_response(
    tenant: str,
    response_id: str,
    *,
    input: list[StoredItem] | None = None,
    after: ThreadPoint | None = None,
    model: str = "small",
    previous: str | None = None,
    **more: Any,
) -> NewResponse:
    """Return an accepted request with one input item, `<response_id>/in`, unless told otherwise.

    `more` are fields of `NewResponse`; without them it runs in the foreground of `worker-1`.
    """
    new = NewResponse(
        tenant=tenant,
        id=response_id,
        model=model,
        created_at=1_700_000_000,
        head=f'{{"id":"{response_id}"}}'.encode(),
        input=[an_item(f"{response_id}/in")] if input is None else input,
        worker="worker-1",
        lease_seconds=30.0,
        after=after,
        previous_response_id=previous,
    )
    return msgspec.structs.replace(new, **more)


def some_events(first: int, last: int) -> EventBatch:
    """Return a batch whose frames say which events they are."""
    return EventBatch(first, last, b"".join(b"<%d>" % n for n in range(first, last + 1)))


def an_end(
    lease: Lease, *, output: list[StoredItem] | None = None, events: EventBatch | None = None
) -> FinishedResponse:
    """Return a completion with one output item, `<response_id>/out`, unless told otherwise."""
    return FinishedResponse(
        lease=lease,
        status="completed",
        head=f'{{"id":"{lease.response_id}","done":true}}'.encode(),
        output=[an_item(f"{lease.response_id}/out")] if output is None else output,
        events=events,
    )


async def begin(
    store: ResponseStore, tenant: str, response_id: str, *, after: str | None = None, **more: Any
) -> Lease:
    """Accept a response that continues `after`; `more` are fields of `NewResponse`."""
    point = None if after is None else (await context(store, tenant, after)).end
    new = a_response(tenant, response_id, after=point, previous=after, **more)
    return await store.accept(new)


async def turn(
    store: ResponseStore, tenant: str, response_id: str, *, after: str | None = None, **more: Any
) -> Lease:
    """Accept and finish a response that continues `after`: `<id>/in`, then `<id>/out`."""
    lease = await begin(store, tenant, response_id, after=after, **more)
    await store.finish(an_end(lease))
    return lease


async def context(store: ResponseStore, tenant: str, response_id: str) -> Context:
    """Return the context of a response that there is."""
    found = await store.load_context(tenant, response_id)
    assert found is not None
    return found


async def history(store: ResponseStore, tenant: str, response_id: str) -> list[str]:
    """Return the ids of the items that a continuation of the response would replay, in order."""
    items = (await context(store, tenant, response_id)).items
    return [(item.replay or b"-").decode() for item in items]


async def a_conversation(
    store: ConversationStore, tenant: str, name: str, *items: str
) -> StoredConversation:
    """Create a conversation with items of these ids."""
    new = NewConversation(
        tenant=tenant, id=name, metadata=b"{}", items=[an_item(item) for item in items]
    )
    return await store.create_conversation(new)


async def place_of(store: ConversationStore, tenant: str, name: str) -> ConversationPlace:
    """Return where a conversation stands."""
    found = await store.load_conversation(tenant, name)
    assert found is not None
    return found.place


def a_turn(tenant: str, response_id: str, place: ConversationPlace, **more: Any) -> NewResponse:
    """Return an accepted request that is a turn of a conversation."""
    return a_response(
        tenant, response_id, after=place.end, conversation=place.id, seen=place.change, **more
    )


async def take_turn(
    store: Store, tenant: str, response_id: str, conversation: str, *, joins: bool = True
) -> Lease:
    """Accept and finish a turn of a conversation: `<id>/in`, then `<id>/out`."""
    place = await place_of(store, tenant, conversation)
    lease = await store.accept(a_turn(tenant, response_id, place))
    await store.finish(msgspec.structs.replace(an_end(lease), joins=joins))
    return lease


async def said(store: ConversationStore, tenant: str, name: str) -> list[str]:
    """Return the ids of the items that the next turn of a conversation would replay, in order."""
    found = await store.load_conversation(tenant, name)
    assert found is not None
    assert not found.busy
    return [(item.replay or b"-").decode() for item in found.items]
