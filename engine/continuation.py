"""What a request continues: a response, a conversation, or nothing."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from engine.api.request import CreateRequest
from engine.context.history import EMPTY, History, usable_history
from engine.errors import InvalidRequest, NotFound, UnknownPreviousResponse
from engine.lines import Visit
from engine.ports import Context, ReplayItem, ResponseStore, ThreadPoint

UNFINISHED = ("queued", "in_progress")


class Continuation(msgspec.Struct, frozen=True):
    """Where a request's items go and what is before them: `history` as it is sent, `items` as it is stored.

    `root` names its thread's family (None: it begins one), `seen` is the change of the conversation's
    place. `checked` is False for a retry that another response answers: nothing of its history is known,
    and what it asks for is not to be judged by it.
    """

    history: History = EMPTY
    items: Sequence[ReplayItem] = ()
    after: ThreadPoint | None = None
    root: str | None = None
    seen: str = ""
    checked: bool = True


async def continuation(
    store: ResponseStore, tenant: str, request: CreateRequest, key: str | None, visit: Visit
) -> Continuation:
    """Return what a request continues; waits for its turn in a conversation.

    Raises InvalidRequest, UnknownPreviousResponse, NotFound, ConversationMoved, StorageUnavailable.
    """
    if request.conversation is not None:
        return await _of_conversation(store, tenant, request.conversation, key, visit)
    if request.previous_response_id is None:
        return Continuation()
    context = await _of_response(store, tenant, request.previous_response_id)
    history = usable_history(context.items)
    return Continuation(history, context.items, context.end, context.root_id)


async def _of_response(store: ResponseStore, tenant: str, previous: str) -> Context:
    context = await store.load_context(tenant, previous)
    if context is None:
        raise UnknownPreviousResponse(previous)
    if context.status in UNFINISHED:
        raise InvalidRequest(
            f"Previous response '{previous}' is still {context.status}.",
            param="previous_response_id",
            code="previous_response_not_finished",
        )
    return context


async def _of_conversation(
    store: ResponseStore, tenant: str, wanted: str, key: str | None, visit: Visit
) -> Continuation:
    if await is_retry(store, tenant, key):
        # The conversation is busy with the first request, or has moved on by it.
        return Continuation(checked=False)
    try:
        found = await visit.context(tenant, wanted)
    except NotFound as missing:
        missing.param = "conversation"
        raise
    if await is_retry(store, tenant, key):
        # The first was before us in the line.
        return Continuation(checked=False)
    history = usable_history(found.items, any_call_waits=True)
    place = found.place
    return Continuation(history, found.items, place.end, found.root_id, place.change)


async def is_retry(store: ResponseStore, tenant: str, key: str | None) -> bool:
    """Return whether another response answers what has this key; raises StorageUnavailable."""
    return key is not None and await store.find_key(tenant, key) is not None
