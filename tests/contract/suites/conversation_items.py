"""Items of conversations: added, listed, read and taken out."""

from __future__ import annotations

import pytest

from engine.errors import InvalidRequest
from engine.ports import Order, Store
from tests.support.stored import (
    a_conversation,
    a_turn,
    an_end,
    an_item,
    history,
    place_of,
    said,
    take_turn,
    turn,
)


async def _add(store: Store, tenant: str, *items: str) -> None:
    place = await place_of(store, tenant, "c")
    await store.add_items(tenant, place, [an_item(item) for item in items])


async def _pages(store: Store, tenant: str, limit: int, order: Order) -> list[str]:
    """Return the ids of all items, read page by page."""
    ids: list[str] = []
    more = True
    while more:
        page = await store.list_conversation_items(
            tenant, "c", limit=limit, after=ids[-1] if ids else None, order=order
        )
        assert page is not None
        assert len(page.ids) <= limit
        ids, more = ids + page.ids, page.has_more
    return ids


class ConversationItemContract:
    """What the items of a conversation are, and what the next turn is sent of them."""

    async def test_what_is_added_and_taken_out_changes_the_next_turn(
        self, store: Store, tenant: str
    ) -> None:
        """M7: and nothing that was before."""
        await a_conversation(store, tenant, "c", "one", "two")
        await take_turn(store, tenant, "r1", "c")
        await _add(store, tenant, "three", "four")
        await take_turn(store, tenant, "r2", "c")
        assert await store.delete_conversation_item(tenant, "c", "two")
        assert await store.delete_conversation_item(tenant, "c", "r1/out")
        assert not await store.delete_conversation_item(tenant, "c", "r1/out")
        assert not await store.delete_conversation_item(tenant, "c", "none")
        assert await said(store, tenant, "c") == [
            "one", "r1/in", "three", "four", "r2/in", "r2/out",
        ]  # fmt: skip
        await take_turn(store, tenant, "r3", "c")
        assert await history(store, tenant, "r3") == [
            "one", "r1/in", "three", "four", "r2/in", "r2/out", "r3/in", "r3/out",
        ]  # fmt: skip

    async def test_items_go_behind_a_turn_that_did_not_join(
        self, store: Store, tenant: str
    ) -> None:
        """M7, M10: on a branch, which the next turn continues."""
        await a_conversation(store, tenant, "c", "one")
        await take_turn(store, tenant, "bad", "c", joins=False)
        await _add(store, tenant, "two")
        await take_turn(store, tenant, "good", "c")
        await _add(store, tenant, "three")
        assert await said(store, tenant, "c") == ["one", "two", "good/in", "good/out", "three"]
        assert await history(store, tenant, "bad") == ["one", "bad/in", "bad/out"]

    async def test_a_dropped_item_is_still_shown_by_its_response(
        self, store: Store, tenant: str
    ) -> None:
        """M7: by that one only; what continues it elsewhere is not sent it, nor is a reference found."""
        await a_conversation(store, tenant, "c")
        await take_turn(store, tenant, "r1", "c")
        await take_turn(store, tenant, "r2", "c")
        assert await store.delete_conversation_item(tenant, "c", "r1/out")
        found = await store.get(tenant, "r1")
        assert found is not None
        assert found.output == [an_item("r1/out").item]
        assert await history(store, tenant, "r1") == ["r1/in", "r1/out"]
        assert await history(store, tenant, "r2") == ["r1/in", "r2/in", "r2/out"]
        assert await store.find_items(tenant, ["r1/out"]) == {}
        await turn(store, tenant, "aside", after="r2")
        assert (await history(store, tenant, "aside"))[0:2] == ["r1/in", "r2/in"]
        assert await store.delete(tenant, "r1")
        assert await said(store, tenant, "c") == ["r1/in", "r2/in", "r2/out"]

    async def test_items_are_listed_in_pages_over_branches(self, store: Store, tenant: str) -> None:
        """H2: each once, in both orders, also where turns did not join; an unknown cursor is refused."""
        await a_conversation(store, tenant, "c", "one", "two")
        for number in range(4):
            await take_turn(store, tenant, f"r{number}", "c", joins=number % 2 == 0)
            await _add(store, tenant, f"after-{number}")
        expected = [
            "one", "two", "r0/in", "r0/out", "after-0", "after-1", "r2/in", "r2/out", "after-2", "after-3",
        ]  # fmt: skip
        for limit in (1, 3, 10, 100):
            assert await _pages(store, tenant, limit, "asc") == expected
            assert await _pages(store, tenant, limit, "desc") == expected[::-1]
        for unknown in ("none", "r1/in"):
            with pytest.raises(InvalidRequest) as refused:
                await store.list_conversation_items(
                    tenant, "c", limit=5, after=unknown, order="asc"
                )
            assert refused.value.param == "after"
        nothing = await store.list_conversation_items(
            tenant, "none", limit=5, after=None, order="asc"
        )
        assert nothing is None

    async def test_equal_ids_are_paged_to_the_end(self, store: Store, tenant: str) -> None:
        """H2: a client that follows its cursor ends; reading gives the newest, deleting takes all."""
        await a_conversation(store, tenant, "c", "same", "x", "same")
        await _add(store, tenant, "same", "y")
        for order in ("asc", "desc"):
            page = await store.list_conversation_items(
                tenant, "c", limit=1, after="same", order="asc" if order == "asc" else "desc"
            )
            assert page is not None
            assert (page.ids, page.has_more) == (["y"] if order == "asc" else [], False)
        assert await store.get_conversation_item(tenant, "c", "same") == an_item("same").item
        assert await store.delete_conversation_item(tenant, "c", "same")
        assert await said(store, tenant, "c") == ["x", "y"]

    async def test_only_its_own_items_are_read_and_taken_out(
        self, store: Store, tenant: str
    ) -> None:
        """X1: not those of another conversation, nor of a turn that runs or did not join."""
        await a_conversation(store, tenant, "c", "one")
        await a_conversation(store, tenant, "d", "two")
        await take_turn(store, tenant, "bad", "c", joins=False)
        lease = await store.accept(a_turn(tenant, "r1", await place_of(store, tenant, "c")))
        for item in ("two", "bad/in", "r1/in"):
            assert await store.get_conversation_item(tenant, "c", item) is None
            assert not await store.delete_conversation_item(tenant, "c", item)
        assert await store.get_conversation_item(tenant, "c", "one") == an_item("one").item
        assert await store.delete_conversation_item(tenant, "c", "one")
        await store.finish(an_end(lease))
        assert await said(store, tenant, "c") == ["r1/in", "r1/out"]
        assert await said(store, tenant, "d") == ["two"]

    async def test_items_that_cannot_be_stored_are_refused(self, store: Store, tenant: str) -> None:
        """H1: with the parameter that they came in."""
        with pytest.raises(InvalidRequest) as refused:
            await a_conversation(store, tenant, "c", "a\0b")
        assert refused.value.param == "items"
        await a_conversation(store, tenant, "c")
        with pytest.raises(InvalidRequest):
            await _add(store, tenant, "c" * 600)
        assert await said(store, tenant, "c") == []
