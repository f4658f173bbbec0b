"""Conversations in Postgres. Turns are begun and ended by `writing`, conversations removed by `removal`."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from typing import Any

from psycopg.types.numeric import Int8

from engine.errors import ConversationMoved
from engine.ports import (
    ConversationContext,
    ConversationPage,
    ConversationPlace,
    NewConversation,
    Order,
    Page,
    ReplayItem,
    StoredConversation,
    StoredItem,
    ThreadPoint,
)
from storage.limits import Reads, check_added, check_conversation, wanted
from storage.postgres import queries
from storage.postgres.pool import Connection, Pool
from storage.postgres.reading import items_of, page_of, window
from storage.postgres.scope import Row, Statement, key, rows_of
from storage.postgres.writer import Write, Writer
from storage.postgres.writing import ACCEPTS, columns, new_thread

_SQL = queries.load("conversations.sql")


class Conversations:
    """`engine.ports.ConversationStore` without removal."""

    def __init__(self, pool: Pool, writer: Writer, reads: Reads) -> None:
        self._pool = pool
        self._reads = reads
        self._writer = writer

    async def create_conversation(self, new: NewConversation) -> StoredConversation:
        """Write a conversation and its first items; raises `InvalidRequest` for unstorable names."""
        check_conversation(new)
        values = {
            "tenant": new.tenant,
            "id": new.id,
            "metadata": new.metadata,
            "new_thread": new_thread(),
            "change": _change(),
            **columns(new.items),
        }
        written = await self._writer.write(_write("create_conversation", values))
        if written.row is not None:
            return StoredConversation(*written.row)
        # Its id is new: it is there because an earlier attempt wrote it, whose answer was lost.
        stored = await self.get_conversation(new.tenant, new.id)
        if stored is None:
            raise ConversationMoved(new.id)
        return stored

    async def get_conversation(
        self, tenant: str, conversation_id: str
    ) -> StoredConversation | None:
        """Return the conversation, or None."""
        rows = await self._asked("get_conversation", key(tenant, conversation_id))
        return StoredConversation(*rows[0]) if rows else None

    async def update_conversation(
        self, tenant: str, conversation_id: str, metadata: bytes
    ) -> StoredConversation | None:
        """Put other metadata in the place of what there was; None if there is no such conversation."""
        values = {**key(tenant, conversation_id), "metadata": metadata}
        rows = await self._asked("update_conversation", values)
        return StoredConversation(*rows[0]) if rows else None

    async def list_conversations(
        self, tenant: str, *, limit: int, after: str | None, order: Order
    ) -> ConversationPage:
        """Return a page by creation; `InvalidRequest` (param `after`) for an unknown cursor."""
        values = {"tenant": wanted(tenant), **window(limit, after)}
        rows = page_of(await self._asked(f"list_conversations_{order}", values), after) or []
        found = [StoredConversation(*row) for row in rows]
        return ConversationPage(found[:limit], has_more=len(found) > limit)

    async def load_conversation(
        self, tenant: str, conversation_id: str, *, items: bool = True
    ) -> ConversationContext | None:
        """Return what a turn needs to continue a conversation; None if there is no such conversation."""
        most = Int8(self._reads.context)
        values = {**key(tenant, conversation_id), "wanted": items, "most": most}
        rows = await self._asked("load_conversation", values)
        if not rows:
            return None
        thread_id, position, change, busy, root_id, *_ = rows[0]
        return ConversationContext(
            place=ConversationPlace(conversation_id, ThreadPoint(thread_id, position), change),
            busy=busy,
            root_id=root_id or "",
            items=[ReplayItem(*row[5:]) for row in rows if row[5] is not None],
        )

    async def add_items(
        self, tenant: str, place: ConversationPlace, items: list[StoredItem]
    ) -> None:
        """Append items; raises `ConversationMoved` if it is not there any more, or no more at that place."""
        check_added(items)
        values = {
            **key(tenant, place.id),
            "after_thread": place.end.thread_id,
            "after_position": Int8(place.end.position),
            "seen": place.change,
            "change": _change(),
            "new_thread": new_thread(),
            **columns(items),
        }
        written = await self._writer.write(_write("add_items", values))
        if written.row is not None:
            return
        if not written.repeated or not await self._asked("added_before", values):
            raise ConversationMoved(place.id)

    async def list_conversation_items(
        self, tenant: str, conversation_id: str, *, limit: int, after: str | None, order: Order
    ) -> Page | None:
        """Return a page of the items, or None if there is no such conversation.

        Raises `InvalidRequest` (param `after`) for an unknown cursor.
        """
        most = Int8(self._reads.page)
        values = {**key(tenant, conversation_id), "most": most, **window(limit, after)}
        rows = page_of(await self._asked(f"list_conversation_items_{order}", values), after)
        return None if rows is None else items_of(rows, limit)

    async def get_conversation_item(
        self, tenant: str, conversation_id: str, item_id: str
    ) -> bytes | None:
        """Return the newest item of that id in the conversation as JSON, or None."""
        values = {**key(tenant, conversation_id), "item_id": wanted(item_id)}
        rows = await self._asked("get_conversation_item", values)
        return rows[0][0] if rows else None

    async def delete_conversation_item(
        self, tenant: str, conversation_id: str, item_id: str
    ) -> bool:
        """Take every item of that id out of the conversation; True if there was one."""
        values = {**key(tenant, conversation_id), "item_id": wanted(item_id)}
        return bool(await self._asked("delete_conversation_item", values))

    async def _asked(self, name: str, values: Mapping[str, Any]) -> list[Row]:
        statement = Statement(_SQL[name], values)

        async def work(connection: Connection, _attempt: int) -> list[Row]:
            [rows] = await rows_of(connection, statement)
            return rows

        return await self._pool.run(work)


def _write(name: str, values: Mapping[str, Any]) -> Write:
    return Write(Statement(_SQL[name], values), (ACCEPTS, values["tenant"], ""))


def _change() -> str:
    """Return a name for a change that is no response's."""
    return f"add_{secrets.token_hex(12)}"
