"""What was written is read back."""

from __future__ import annotations

import pytest

from engine.errors import Conflict, InvalidRequest, LeaseLost, UnknownPreviousResponse
from engine.ports import Lease, ReplayItem, ResponseStore, StoredItem
from tests.support.stored import a_response, an_end, an_item, begin, context, history, turn


class ReadingContract:
    """What was written is read back."""

    async def test_a_finished_response_reads_back_as_it_was_written(
        self, store: ResponseStore, tenant: str
    ) -> None:
        """Head, status and output in order."""
        lease = await begin(store, tenant, "r1")
        await store.finish(an_end(lease, output=[an_item("a"), an_item("b")]))
        found = await store.get(tenant, "r1")
        assert found is not None
        assert (found.id, found.status) == ("r1", "completed")
        assert found.head == b'{"id":"r1","done":true}'
        assert found.output == [b'{"id":"a"}', b'{"id":"b"}']

    async def test_a_running_response_is_found_without_output(
        self, store: ResponseStore, tenant: str
    ) -> None:
        """Its head is the one it was accepted with."""
        await begin(store, tenant, "r1")
        found = await store.get(tenant, "r1")
        assert found is not None
        assert (found.status, found.head, found.output) == ("in_progress", b'{"id":"r1"}', [])

    async def test_nothing_is_found_under_an_unknown_id(
        self, store: ResponseStore, tenant: str
    ) -> None:
        """None or False or nothing, never an error."""
        assert await store.get(tenant, "r1") is None
        assert await store.load_context(tenant, "r1") is None
        assert await store.delete(tenant, "r1") is False
        assert await store.find_items(tenant, ["r1/in"]) == {}
        assert await store.find_items(tenant, []) == {}
        page = await store.list_input_items(tenant, "r1", limit=5, after=None, order="asc")
        assert page is None

    async def test_payloads_are_kept_byte_for_byte(self, store: ResponseStore, tenant: str) -> None:
        """NUL characters, lone surrogates and what is not even UTF-8 come back as they went in."""
        odd = b'{"text":"\\u0000 \\ud800 \x00 \xff"}'
        lease = await store.accept(
            a_response(tenant, "r1", input=[StoredItem("i", "message", odd, odd, "call")])
        )
        await store.finish(an_end(lease, output=[StoredItem("o", "reasoning", odd, None)]))
        found = await store.get(tenant, "r1")
        assert found is not None
        assert found.output == [odd]
        assert (await context(store, tenant, "r1")).items == [
            ReplayItem("message", "call", odd, output=False, position=0),
            ReplayItem("reasoning", None, None, output=True, position=1),
        ]

    async def test_a_response_may_have_no_items_at_all(
        self, store: ResponseStore, tenant: str
    ) -> None:
        """An empty input and an empty output are lists like others."""
        lease = await store.accept(a_response(tenant, "r1", input=[]))
        await store.finish(an_end(lease, output=[]))
        await turn(store, tenant, "r2", after="r1")
        assert await history(store, tenant, "r2") == ["r2/in", "r2/out"]
        page = await store.list_input_items(tenant, "r1", limit=5, after=None, order="asc")
        assert page is not None
        assert (page.items, page.has_more) == ([], False)

    async def test_a_second_response_of_one_id_is_refused(
        self, store: ResponseStore, tenant: str
    ) -> None:
        """The first stays as it is."""
        await turn(store, tenant, "r1")
        with pytest.raises(Conflict):
            await store.accept(a_response(tenant, "r1", input=[an_item("other")]))
        assert await history(store, tenant, "r1") == ["r1/in", "r1/out"]
        assert await store.find_items(tenant, ["other"]) == {}

    @pytest.mark.parametrize("name", ["nul\0", "surrogate\ud800", "x" * 600])
    async def test_names_that_cannot_be_stored_are_refused_and_never_found(
        self, store: ResponseStore, tenant: str, name: str
    ) -> None:
        """H1: an InvalidRequest when written, nothing when asked for; never a failure of the store."""
        with pytest.raises(InvalidRequest):
            await store.accept(a_response(tenant, "r1", model=name))
        with pytest.raises(InvalidRequest):
            await store.accept(
                a_response(tenant, "r1", input=[StoredItem(name, "message", b"", b"")])
            )
        await turn(store, tenant, "r1")
        assert await store.get(tenant, name) is None
        assert await store.get(name, "r1") is None
        assert await store.load_context(tenant, name) is None
        assert await store.delete(tenant, name) is False
        assert await store.find_items(tenant, [name]) == {}
        with pytest.raises(InvalidRequest):
            await store.list_responses(tenant, limit=1, after=name, order="asc", model=None)
        page = await store.list_responses(tenant, limit=1, after=None, order="asc", model=name)
        assert page.responses == []

    async def test_tenants_do_not_see_each_other(self, store: ResponseStore, tenant: str) -> None:
        """X1: a foreign id is like a missing one, for every method."""
        lease = await begin(store, tenant, "r1")
        thief = f"{tenant}-thief"
        assert await store.get(thief, "r1") is None
        assert await store.load_context(thief, "r1") is None
        assert await store.delete(thief, "r1") is False
        assert await store.find_items(thief, ["r1/in"]) == {}
        assert (await store.list_input_items(thief, "r1", limit=1, after=None, order="asc")) is None
        with pytest.raises(InvalidRequest):
            await store.list_responses(thief, limit=1, after="r1", order="asc", model=None)
        with pytest.raises(LeaseLost):
            await store.finish(an_end(Lease(thief, "r1", lease.token)))
        await store.abandon(Lease(thief, "r1", lease.token))
        await turn(store, thief, "r1")  # an id belongs to nobody
        await store.finish(an_end(lease))
        point = (await context(store, tenant, "r1")).end
        with pytest.raises(UnknownPreviousResponse):
            await store.accept(a_response(thief, "r2", after=point, previous="r1"))
        assert await store.get(thief, "r2") is None
