"""Conversations as a port: named places in threads, and the items that are before them.

A conversation is a name for a point of a thread (`engine.ports.records.ThreadPoint`). Its items are all that
precedes that point; a turn, or items that are added, move it on. Nothing else is stored twice.
"""

from __future__ import annotations

from typing import Protocol

import msgspec

from engine.ports.records import Order, Page, ReplayItem, StoredItem, ThreadPoint


class NewConversation(msgspec.Struct, frozen=True, kw_only=True):
    """A conversation as it is created; `metadata` is a JSON object."""

    tenant: str
    id: str
    metadata: bytes
    items: list[StoredItem]


class StoredConversation(msgspec.Struct, frozen=True):
    """A conversation as read back; `created_at` is in Unix seconds, `metadata` a JSON object."""

    id: str
    created_at: int
    metadata: bytes


class ConversationPlace(msgspec.Struct, frozen=True):
    """Where a conversation stands. `change` names what brought it there: a write that saw an older place
    than the present one is refused, so that nothing comes in between unseen (rule M7).
    """

    id: str
    end: ThreadPoint
    change: str


class ConversationContext(msgspec.Struct, frozen=True):
    """The items of a conversation in order, for a turn.

    `busy`: a response that belongs to it is not finished; `items` and `root_id`, the id of the oldest
    ancestor thread, are empty then.
    """

    place: ConversationPlace
    busy: bool
    root_id: str
    items: list[ReplayItem]


class ConversationPage(msgspec.Struct, frozen=True):
    """One page of conversations, in the order asked for."""

    conversations: list[StoredConversation]
    has_more: bool


class ConversationStore(Protocol):
    """Conversations and their items.

    Every method raises `StorageUnavailable` when the store cannot do its work now; what was acknowledged by
    a return is durable. Turns are begun and ended by `ResponseStore.accept` and `finish`.
    """

    async def create_conversation(self, new: NewConversation) -> StoredConversation:
        """Write a conversation and its first items; raises `InvalidRequest` for unstorable names."""
        ...

    async def get_conversation(
        self, tenant: str, conversation_id: str
    ) -> StoredConversation | None:
        """Return the conversation, or None."""
        ...

    async def update_conversation(
        self, tenant: str, conversation_id: str, metadata: bytes
    ) -> StoredConversation | None:
        """Put other metadata in the place of what there was; None if there is no such conversation."""
        ...

    async def delete_conversation(self, tenant: str, conversation_id: str) -> bool:
        """Remove a conversation, and its items with the threads that no response needs.

        True if there was one. A response of it that runs goes on and is stored as any other.
        """
        ...

    async def list_conversations(
        self, tenant: str, *, limit: int, after: str | None, order: Order
    ) -> ConversationPage:
        """Return a page by creation; raises `InvalidRequest` (param `after`) for an unknown cursor."""
        ...

    async def load_conversation(
        self, tenant: str, conversation_id: str, *, items: bool = True
    ) -> ConversationContext | None:
        """Return what a turn needs to continue a conversation; None if there is no such conversation.

        Without `items` where it stands is all that is told. What is read of them is bounded as in
        `ResponseStore.load_context`.
        """
        ...

    async def add_items(
        self, tenant: str, place: ConversationPlace, items: list[StoredItem]
    ) -> None:
        """Append items; raises `ConversationMoved` if it is not there any more, or no more at that place."""
        ...

    async def list_conversation_items(
        self, tenant: str, conversation_id: str, *, limit: int, after: str | None, order: Order
    ) -> Page | None:
        """Return a page of the items, or None if there is no such conversation.

        Large items make it shorter. Raises `InvalidRequest` (param `after`) for an unknown cursor.
        """
        ...

    async def get_conversation_item(
        self, tenant: str, conversation_id: str, item_id: str
    ) -> bytes | None:
        """Return the newest item of that id in the conversation as JSON, or None."""
        ...

    async def delete_conversation_item(
        self, tenant: str, conversation_id: str, item_id: str
    ) -> bool:
        """Take every item of that id out of the conversation; True if there was one.

        No later turn is sent it. A response that it came with still shows it.
        """
        ...
