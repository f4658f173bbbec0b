"""Conversations: turns one after the other, what joins and what does not, and their end."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from engine.errors import AlreadyAccepted, ConversationMoved, InvalidRequest
from engine.ports import Idempotency, NewConversation, Store, StoredConversation
from tests.support.stored import (
    a_conversation,
    a_response,
    a_turn,
    an_end,
    an_item,
    begin,
    history,
    place_of,
    said,
    take_turn,
    turn,
)


class ConversationContract:
    """Conversations and their turns."""

    async def test_a_conversation_is_created_read_changed_and_removed(
        self, store: Store, tenant: str
    ) -> None:
        """Its metadata are bytes of JSON; what is not there is None."""
        new = NewConversation(tenant=tenant, id="c", metadata=b'{"a":"b"}', items=[])
        created = await store.create_conversation(new)
        assert (created.id, created.metadata) == ("c", b'{"a":"b"}')
        assert await store.get_conversation(tenant, "c") == created
        changed = StoredConversation("c", created.created_at, b"{}")
        assert await store.update_conversation(tenant, "c", b"{}") == changed
        assert await store.get_conversation(tenant, "c") == changed
        assert await store.delete_conversation(tenant, "c")
        assert not await store.delete_conversation(tenant, "c")
        assert await store.get_conversation(tenant, "c") is None
        assert await store.update_conversation(tenant, "c", b"{}") is None
        assert await store.load_conversation(tenant, "c") is None

    async def test_conversations_of_others_are_not_there(self, store: Store, tenant: str) -> None:
        """X1: whatever is asked of them."""
        await a_conversation(store, tenant, "c", "one")
        place = await place_of(store, tenant, "c")
        other = f"{tenant}-2"
        assert await store.get_conversation(other, "c") is None
        assert await store.update_conversation(other, "c", b"[]") is None
        assert await store.load_conversation(other, "c") is None
        assert not await store.delete_conversation(other, "c")
        assert not await store.delete_conversation_item(other, "c", "one")
        assert await store.get_conversation_item(other, "c", "one") is None
        with pytest.raises(ConversationMoved):
            await store.accept(a_turn(other, "r", place))
        with pytest.raises(ConversationMoved):
            await store.add_items(other, place, [an_item("x")])
        assert await said(store, tenant, "c") == ["one"]

    async def test_conversations_are_listed_by_creation(self, store: Store, tenant: str) -> None:
        """H2: pages in both orders; an unknown cursor is refused."""
        for number in range(5):
            await a_conversation(store, tenant, f"c{number}")
        page = await store.list_conversations(tenant, limit=2, after=None, order="asc")
        assert ([each.id for each in page.conversations], page.has_more) == (["c0", "c1"], True)
        page = await store.list_conversations(tenant, limit=3, after="c1", order="asc")
        assert ([e.id for e in page.conversations], page.has_more) == (["c2", "c3", "c4"], False)
        page = await store.list_conversations(tenant, limit=2, after="c4", order="desc")
        assert [each.id for each in page.conversations] == ["c3", "c2"]
        with pytest.raises(InvalidRequest) as refused:
            await store.list_conversations(tenant, limit=2, after="r1", order="asc")
        assert refused.value.param == "after"
        empty = await store.list_conversations(f"{tenant}-2", limit=2, after=None, order="asc")
        assert (empty.conversations, empty.has_more) == ([], False)

    async def test_turns_append_their_input_and_output(self, store: Store, tenant: str) -> None:
        """M2, M7: after what the conversation began with, in one thread, each item once."""
        await a_conversation(store, tenant, "c", "first")
        begun = await place_of(store, tenant, "c")
        await take_turn(store, tenant, "r1", "c")
        await take_turn(store, tenant, "r2", "c")
        assert await said(store, tenant, "c") == ["first", "r1/in", "r1/out", "r2/in", "r2/out"]
        place = await place_of(store, tenant, "c")
        assert (place.end.thread_id, place.end.position) == (begun.end.thread_id, 5)
        assert await history(store, tenant, "r1") == ["first", "r1/in", "r1/out"]

    async def test_a_second_turn_waits_for_the_end_of_the_first(
        self, store: Store, tenant: str
    ) -> None:
        """M7: the conversation is busy until then, and whoever saw the older place is refused."""
        await a_conversation(store, tenant, "c")
        place = await place_of(store, tenant, "c")
        lease = await store.accept(a_turn(tenant, "r1", place))
        with pytest.raises(ConversationMoved):
            await store.accept(a_turn(tenant, "r2", place))
        with pytest.raises(ConversationMoved):
            await store.add_items(tenant, place, [an_item("x")])
        found = await store.load_conversation(tenant, "c")
        assert found is not None
        assert (found.busy, found.items) == (True, [])
        await store.finish(an_end(lease))
        with pytest.raises(ConversationMoved):
            await store.accept(a_turn(tenant, "r2", place))
        await take_turn(store, tenant, "r2", "c")
        assert await said(store, tenant, "c") == ["r1/in", "r1/out", "r2/in", "r2/out"]

    async def test_of_many_concurrent_turns_each_sees_those_before_it(
        self, store: Store, tenant: str
    ) -> None:
        """M7: none is lost, whoever comes first."""
        await a_conversation(store, tenant, "c")
        seen: dict[str, list[str]] = {}

        async def take(name: str) -> None:
            while True:
                found = await store.load_conversation(tenant, "c")
                assert found is not None
                if found.busy:
                    await asyncio.sleep(0.001)
                    continue
                try:
                    lease = await store.accept(a_turn(tenant, name, found.place))
                except ConversationMoved:
                    continue
                seen[name] = [(item.replay or b"").decode() for item in found.items]
                await store.finish(an_end(lease))
                return

        async with asyncio.timeout(60):
            await asyncio.gather(*(take(f"r{number}") for number in range(20)))
        items = await said(store, tenant, "c")
        assert len(items) == 40
        for name, before in seen.items():
            assert items[: len(before)] == before
            assert items[len(before) : len(before) + 2] == [f"{name}/in", f"{name}/out"]

    async def test_what_does_not_join_leaves_the_conversation_as_it_was(
        self, store: Store, tenant: str
    ) -> None:
        """M7, P4: a failed turn is a branch: it has its history, and the next turn does not see it."""
        await a_conversation(store, tenant, "c", "first")
        await take_turn(store, tenant, "bad", "c", joins=False)
        assert await said(store, tenant, "c") == ["first"]
        await take_turn(store, tenant, "good", "c")
        assert await said(store, tenant, "c") == ["first", "good/in", "good/out"]
        assert await history(store, tenant, "bad") == ["first", "bad/in", "bad/out"]
        page = await store.list_conversation_items(tenant, "c", limit=9, after=None, order="asc")
        assert page is not None
        assert page.ids == ["first", "good/in", "good/out"]

    async def test_a_turn_that_is_taken_back_frees_the_conversation(
        self, store: Store, tenant: str
    ) -> None:
        """M7: an abandoned response, and one that was deleted while it ran."""
        await a_conversation(store, tenant, "c", "first")
        place = await place_of(store, tenant, "c")
        await store.abandon(await store.accept(a_turn(tenant, "r1", place)))
        assert await said(store, tenant, "c") == ["first"]
        place = await place_of(store, tenant, "c")
        await store.accept(a_turn(tenant, "r2", place))
        assert await store.delete(tenant, "r2")
        assert await said(store, tenant, "c") == ["first"]
        await take_turn(store, tenant, "r3", "c")
        assert await said(store, tenant, "c") == ["first", "r3/in", "r3/out"]

    async def test_a_dead_workers_turn_is_ended_by_whoever_takes_it_over(
        self, store: Store, tenant: str, wait: Callable[[float], Awaitable[None]]
    ) -> None:
        """P4: until then the conversation is busy, and then it is free."""
        await a_conversation(store, tenant, "c")
        place = await place_of(store, tenant, "c")
        dead = await store.accept(a_turn(tenant, "r1", place))
        await wait(31)
        claims = await store.claim("w/1#1", 30.0, queued=0, expired=9)
        [mine] = [claim.lease for claim in claims if claim.lease.tenant == tenant]
        found = await store.load_conversation(tenant, "c")
        assert found is not None
        assert found.busy
        assert mine.token > dead.token
        await store.finish(an_end(mine))
        assert await said(store, tenant, "c") == ["r1/in", "r1/out"]

    async def test_a_continuation_of_a_turn_is_no_part_of_the_conversation(
        self, store: Store, tenant: str
    ) -> None:
        """M10: by previous_response_id; even where it takes the conversation's thread."""
        await a_conversation(store, tenant, "c", "first")
        await take_turn(store, tenant, "r1", "c")
        await turn(store, tenant, "aside", after="r1")
        running = await begin(store, tenant, "running", after="r1")
        await take_turn(store, tenant, "r2", "c")
        await store.finish(an_end(running))
        assert await said(store, tenant, "c") == ["first", "r1/in", "r1/out", "r2/in", "r2/out"]
        assert await history(store, tenant, "aside") == [
            "first", "r1/in", "r1/out", "aside/in", "aside/out",
        ]  # fmt: skip

    async def test_a_removed_response_leaves_its_items_to_the_conversation(
        self, store: Store, tenant: str, wait: Callable[[float], Awaitable[None]]
    ) -> None:
        """P7: deleted, or because its time has come."""
        await a_conversation(store, tenant, "c")
        await take_turn(store, tenant, "r1", "c")
        place = await place_of(store, tenant, "c")
        await store.finish(an_end(await store.accept(a_turn(tenant, "r2", place, keep_seconds=9))))
        assert await store.delete(tenant, "r1")
        await wait(10)
        assert await store.remove_expired(limit=10) >= 1
        assert await store.get(tenant, "r2") is None
        items = ["r1/in", "r1/out", "r2/in", "r2/out"]
        assert await said(store, tenant, "c") == items
        assert set(await store.find_items(tenant, items)) == set(items)
        await take_turn(store, tenant, "r3", "c", joins=False)
        assert await store.delete(tenant, "r3")
        assert await store.find_items(tenant, ["r3/in", "r3/out"]) == {}

    async def test_a_removed_conversation_leaves_its_responses(
        self, store: Store, tenant: str
    ) -> None:
        """P7: they can be read and continued; what nothing needs any more is gone."""
        await a_conversation(store, tenant, "c", "first")
        await take_turn(store, tenant, "r1", "c")
        assert await store.delete_conversation(tenant, "c")
        assert await store.get(tenant, "r1") is not None
        await turn(store, tenant, "r2", after="r1")
        assert await history(store, tenant, "r2") == [
            "first", "r1/in", "r1/out", "r2/in", "r2/out",
        ]  # fmt: skip
        assert await store.delete(tenant, "r1")
        assert await store.find_items(tenant, ["r1/in", "r1/out"]) == {}
        assert await store.delete(tenant, "r2")
        assert await store.find_items(tenant, ["first"]) == {}
        await a_conversation(store, tenant, "d", "alone")
        assert await store.delete_conversation(tenant, "d")
        assert await store.find_items(tenant, ["alone"]) == {}

    async def test_a_turn_goes_on_when_its_conversation_is_removed(
        self, store: Store, tenant: str
    ) -> None:
        """P1: it is stored as any other response."""
        await a_conversation(store, tenant, "c", "first")
        lease = await store.accept(a_turn(tenant, "r1", await place_of(store, tenant, "c")))
        assert await store.delete_conversation(tenant, "c")
        await store.finish(an_end(lease))
        assert await history(store, tenant, "r1") == ["first", "r1/in", "r1/out"]
        assert await store.load_conversation(tenant, "c") is None

    async def test_a_key_that_is_taken_says_so_before_the_conversation_does(
        self, store: Store, tenant: str
    ) -> None:
        """M7: a retry is served with what its first request makes."""
        await a_conversation(store, tenant, "c")
        key = Idempotency("key", b"digest")
        place = await place_of(store, tenant, "c")
        assert await store.find_key(tenant, "key") is None
        await store.accept(a_turn(tenant, "r1", place, idempotency=key))
        assert await store.find_key(tenant, "key") == ("r1", b"digest")
        assert await store.find_key(f"{tenant}-2", "key") is None
        with pytest.raises(AlreadyAccepted):
            await store.accept(a_turn(tenant, "r2", place, idempotency=key))
        with pytest.raises(ConversationMoved):
            await store.accept(a_turn(tenant, "r3", place, idempotency=Idempotency("k2", b"")))
        assert await store.find_key(tenant, "k2") is None

    async def test_a_tenants_removal_takes_its_conversations(
        self, store: Store, tenant: str
    ) -> None:
        """P7: with their items; in as many steps as it takes."""
        for number in range(3):
            await a_conversation(store, tenant, f"c{number}", f"i{number}")
            await take_turn(store, tenant, f"r{number}", f"c{number}")
        await store.accept(a_response(tenant, "other"))
        while await store.remove_tenant(tenant, limit=2):
            pass
        assert await store.load_conversation(tenant, "c0") is None
        assert await store.find_items(tenant, ["i0", "i1", "i2", "r1/in"]) == {}
