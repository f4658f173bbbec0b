"""Conversations in memory: names for places in threads. The store has the rest of them."""

from __future__ import annotations

import secrets
from collections.abc import Callable

from engine.ports import (
    ConversationContext,
    ConversationPage,
    ConversationPlace,
    NewConversation,
    Order,
    Page,
    StoredConversation,
    StoredItem,
    ThreadPoint,
)
from storage.limits import Reads, check_added, check_conversation
from storage.memory.pages import ordered, past, whole
from storage.memory.records import Conversation, Tenant, Tenants, Thread
from storage.memory.threads import add, conversation_items, drop, history, new_thread, prune


class MemoryConversations:
    """`engine.ports.ConversationStore` in memory."""

    _clock: Callable[[], float]
    _tenants: Tenants
    _reads: Reads

    async def create_conversation(self, new: NewConversation) -> StoredConversation:
        """Write a conversation and its first items; raises `InvalidRequest` for unstorable names."""
        check_conversation(new)
        mine = self._tenants.kept(new.tenant)
        thread = new_thread(mine, None)
        add(mine, thread, new.items, new.id)
        mine.conversations[new.id] = found = Conversation(
            new.id, _end(thread), _change(), new.metadata, int(self._clock())
        )
        return found.stored

    async def get_conversation(
        self, tenant: str, conversation_id: str
    ) -> StoredConversation | None:
        """Return the conversation, or None."""
        found = self._find(tenant, conversation_id)
        return None if found is None else found.stored

    async def update_conversation(
        self, tenant: str, conversation_id: str, metadata: bytes
    ) -> StoredConversation | None:
        """Put other metadata in the place of what there was; None if there is no such conversation."""
        found = self._find(tenant, conversation_id)
        if found is None:
            return None
        found.metadata = metadata
        return found.stored

    async def delete_conversation(self, tenant: str, conversation_id: str) -> bool:
        """Remove a conversation, and its items with the threads that nothing else needs."""
        found = self._find(tenant, conversation_id)
        if found is None:
            return False
        mine = self._tenants.of(tenant)
        del mine.conversations[conversation_id]
        prune(mine, mine.threads[found.end.thread_id])
        return True

    async def list_conversations(
        self, tenant: str, *, limit: int, after: str | None, order: Order
    ) -> ConversationPage:
        """Return a page by creation; `InvalidRequest` (param `after`) for an unknown cursor."""
        found = ordered(list(self._tenants.of(tenant).conversations.values()), order)
        found = past(found, [each.id for each in found], after)
        return ConversationPage([each.stored for each in found[:limit]], len(found) > limit)

    async def load_conversation(
        self, tenant: str, conversation_id: str, *, items: bool = True
    ) -> ConversationContext | None:
        """Return what a turn needs to continue a conversation; None if there is no such conversation."""
        found = self._find(tenant, conversation_id)
        if found is None:
            return None
        mine = self._tenants.of(tenant)
        turn = mine.responses.get(found.change)
        busy = turn is not None and turn.run is not None
        return ConversationContext(
            place=ConversationPlace(conversation_id, found.end, found.change),
            busy=busy,
            root_id=mine.threads[found.end.thread_id].root_id if items and not busy else "",
            items=history(mine, found.end, most=self._reads.context) if items and not busy else [],
        )

    async def add_items(
        self, tenant: str, place: ConversationPlace, items: list[StoredItem]
    ) -> None:
        """Append items; raises `ConversationMoved` if it is not there any more, or no more at that place."""
        check_added(items)
        mine = self._tenants.of(tenant)
        found = mine.conversation_at(place.id, place.end, place.change)
        thread = mine.threads[found.end.thread_id]
        if thread.tip != found.end.position or thread.writer is not None:
            thread = new_thread(mine, found.end)
        add(mine, thread, items, found.id)
        found.end, found.change = _end(thread), _change()

    async def list_conversation_items(
        self, tenant: str, conversation_id: str, *, limit: int, after: str | None, order: Order
    ) -> Page | None:
        """Return a page of the items, or None if there is no such conversation."""
        items = self._items(tenant, conversation_id)
        if items is None:
            return None
        found = ordered(items, order)
        found = past(found, [item.id for item in found], after)
        sizes = [len(item.item) for item in found]
        page, has_more = whole(found, sizes, limit, self._reads.page)
        return Page([i.item for i in page], [i.id for i in page], has_more)

    async def get_conversation_item(
        self, tenant: str, conversation_id: str, item_id: str
    ) -> bytes | None:
        """Return the newest item of that id in the conversation as JSON, or None."""
        items = self._items(tenant, conversation_id) or []
        return next((item.item for item in reversed(items) if item.id == item_id), None)

    async def delete_conversation_item(
        self, tenant: str, conversation_id: str, item_id: str
    ) -> bool:
        """Take every item of that id out of the conversation; True if there was one."""
        found = self._find(tenant, conversation_id)
        return found is not None and drop(self._tenants.of(tenant), found.end, item_id)

    def _find(self, tenant: str, conversation_id: str) -> Conversation | None:
        return self._tenants.of(tenant).conversations.get(conversation_id)

    def _items(self, tenant: str, conversation_id: str) -> list[StoredItem] | None:
        mine: Tenant = self._tenants.of(tenant)
        found = mine.conversations.get(conversation_id)
        return None if found is None else conversation_items(mine, found.end)


def _end(thread: Thread) -> ThreadPoint:
    return ThreadPoint(thread.id, thread.length)


def _change() -> str:
    """Return a name for a change that is no response's."""
    return f"add_{secrets.token_hex(12)}"
