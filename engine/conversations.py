"""Conversations as the API's operations on them, and on their items. Their turns are `engine.responses`'s."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from engine.answers import Answer
from engine.api.conversations import (
    conversation_object,
    parse_add_items,
    parse_create_conversation,
    parse_update_conversation,
)
from engine.api.items import Entry
from engine.api.json import encode
from engine.api.lists import list_object, no_parameters, only_include, parse_list
from engine.context.owned_calls import with_calls
from engine.context.seals import Seals, Unseal
from engine.context.searches import with_searches
from engine.errors import ConversationMoved, NotFound
from engine.ids import RANDOM_BYTES, ItemIds, conversation_id
from engine.intake import Caller
from engine.limits import Limits
from engine.lines import Lines, no_conversation
from engine.ports import NewConversation, Sealing, Store, StoredConversation, StoredItem
from engine.references import Attach, resolve

_Items = list[StoredItem]


class Conversations:
    """The operations on conversations; `lines` is where those wait who add to one."""

    def __init__(
        self,
        *,
        store: Store,
        lines: Lines,
        sealing: Sealing,
        attach: Attach,
        randomness: Callable[[int], bytes],
        limits: Limits,
    ) -> None:
        self._limits = limits
        self._sealing = sealing
        self._store = store
        self._lines = lines
        self._attach = attach
        self._randomness = randomness

    async def create(self, caller: Caller, body: bytes, query: str) -> Answer:
        """`POST /v1/conversations`, with up to 20 items."""
        no_parameters(query)
        asked = parse_create_conversation(body, self._ids(), self._unseal(caller))
        items = await self._resolved(caller, asked.items)
        new = NewConversation(
            tenant=caller.tenant,
            id=conversation_id(self._randomness(RANDOM_BYTES)),
            metadata=asked.metadata,
            items=items,
        )
        return _shown(await self._store.create_conversation(new))

    async def retrieve(self, caller: Caller, wanted: str, query: str) -> Answer:
        """`GET /v1/conversations/{id}`."""
        no_parameters(query)
        return _found(await self._store.get_conversation(caller.tenant, wanted), wanted)

    async def update(self, caller: Caller, wanted: str, body: bytes, query: str) -> Answer:
        """`POST /v1/conversations/{id}`: other metadata in the place of what there is."""
        no_parameters(query)
        metadata = parse_update_conversation(body)
        stored = await self._store.update_conversation(caller.tenant, wanted, metadata)
        return _found(stored, wanted)

    async def delete(self, caller: Caller, wanted: str, query: str) -> Answer:
        """`DELETE /v1/conversations/{id}`; its responses stay, one that runs goes on."""
        no_parameters(query)
        if not await self._store.delete_conversation(caller.tenant, wanted):
            raise no_conversation(wanted)
        gone = {"id": wanted, "object": "conversation.deleted", "deleted": True}
        return Answer(200, encode(gone))

    async def list(self, caller: Caller, query: str) -> Answer:
        """`GET /v1/conversations` (an extension of ours): by creation, newest first by default."""
        asked = parse_list(query, ("limit", "after", "order"))
        page = await self._store.list_conversations(
            caller.tenant, limit=asked.limit, after=asked.after, order=asked.order
        )
        bodies = [conversation_object(each) for each in page.conversations]
        ids = [each.id for each in page.conversations]
        return Answer(200, list_object(bodies, ids, has_more=page.has_more))

    # -- items ----------------------------------------------------------------------------------

    async def add_items(self, caller: Caller, wanted: str, body: bytes, query: str) -> Answer:
        """`POST /v1/conversations/{id}/items`, up to 20; waits for the end of a turn (rule M7)."""
        only_include(query)
        asked = parse_add_items(body, self._ids(), self._unseal(caller))
        items = await self._resolved(caller, asked)
        await self._add(caller.tenant, wanted, items)
        ids = [item.id for item in items]
        return Answer(200, list_object([item.item for item in items], ids, has_more=False))

    async def _add(self, tenant: str, wanted: str, items: _Items) -> None:
        with self._lines.visit() as visit:
            while True:
                found = await visit.context(tenant, wanted, items=False)
                try:
                    await self._store.add_items(tenant, found.place, items)
                    return
                except ConversationMoved:
                    # Another worker was first: wait for what it does.
                    continue

    async def list_items(self, caller: Caller, wanted: str, query: str) -> Answer:
        """`GET /v1/conversations/{id}/items`, newest first by default; all that can be included is."""
        asked = parse_list(query, ("limit", "after", "order"))
        page = await self._store.list_conversation_items(
            caller.tenant, wanted, limit=asked.limit, after=asked.after, order=asked.order
        )
        if page is None:
            raise no_conversation(wanted)
        return Answer(200, list_object(page.items, page.ids, has_more=page.has_more))

    async def retrieve_item(self, caller: Caller, wanted: str, item: str, query: str) -> Answer:
        """`GET /v1/conversations/{id}/items/{item_id}`."""
        only_include(query)
        found = await self._store.get_conversation_item(caller.tenant, wanted, item)
        if found is None:
            raise await self._no_item(caller.tenant, wanted, item)
        return Answer(200, found)

    async def delete_item(self, caller: Caller, wanted: str, item: str, query: str) -> Answer:
        """`DELETE /v1/conversations/{id}/items/{item_id}`: no later turn is sent it."""
        no_parameters(query)
        if not await self._store.delete_conversation_item(caller.tenant, wanted, item):
            raise await self._no_item(caller.tenant, wanted, item)
        return _found(await self._store.get_conversation(caller.tenant, wanted), wanted)

    async def _no_item(self, tenant: str, wanted: str, item: str) -> NotFound:
        if await self._store.get_conversation(tenant, wanted) is None:
            return no_conversation(wanted)
        return NotFound(f"Item with id '{item}' not found in conversation '{wanted}'.")

    async def _resolved(self, caller: Caller, given: Sequence[Entry]) -> _Items:
        """Return items as the model is sent them: calls of tools with their outputs (rule M4)."""
        items = await resolve(self._store, self._attach, caller.tenant, given, self._limits)
        return with_calls(with_searches(items, first=1), labels=None)

    def _unseal(self, caller: Caller) -> Unseal:
        return Seals(self._sealing, caller.tenant).unseal

    def _ids(self) -> ItemIds:
        return ItemIds(self._randomness(RANDOM_BYTES).hex())


def _shown(stored: StoredConversation) -> Answer:
    return Answer(200, conversation_object(stored))


def _found(stored: StoredConversation | None, wanted: str) -> Answer:
    if stored is None:
        raise no_conversation(wanted)
    return _shown(stored)
