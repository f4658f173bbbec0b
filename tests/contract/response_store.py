"""What every `engine.ports.ResponseStore` does: run by one test module for each adapter.

Each test has a tenant of its own, so that adapters need not be emptied.
"""

from __future__ import annotations

import asyncio
import uuid
from dataclasses import dataclass, field

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from engine.errors import Conflict, InvalidRequest, LeaseLost, UnknownPreviousResponse
from engine.ports import Lease, Order, ReplayItem, ResponseStore, StoredItem, ThreadPoint
from tests.support.stored import a_response, an_end, an_item, begin, context, history, turn


@pytest.fixture
def tenant() -> str:
    return f"tenant-{uuid.uuid4().hex}"


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
            ReplayItem("message", "call", odd, output=False),
            ReplayItem("reasoning", None, None, output=True),
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


class HistoryContract:
    """Threads: continuing, branching, concurrency."""

    async def test_a_continuation_has_the_whole_history_in_order(
        self, store: ResponseStore, tenant: str
    ) -> None:
        """M2: previous input, previous output, input; in the thread of the first."""
        await turn(store, tenant, "r1")
        await turn(store, tenant, "r2", after="r1")
        await begin(store, tenant, "r3", after="r2")
        found = await context(store, tenant, "r3")
        assert await history(store, tenant, "r3") == ["r1/in", "r1/out", "r2/in", "r2/out", "r3/in"]
        assert found.status == "in_progress"
        assert found.end.thread_id == found.root_id
        assert (await context(store, tenant, "r1")).end.thread_id == found.root_id

    async def test_two_continuations_do_not_see_each_other(
        self, store: ResponseStore, tenant: str
    ) -> None:
        """M10: the second branches; both have the common history and the same root."""
        await turn(store, tenant, "r1")
        await turn(store, tenant, "left", after="r1")
        await turn(store, tenant, "right", after="r1")
        await turn(store, tenant, "left2", after="left")
        await turn(store, tenant, "right2", after="right")
        common = ["r1/in", "r1/out"]
        assert await history(store, tenant, "left2") == [
            *common, "left/in", "left/out", "left2/in", "left2/out",
        ]  # fmt: skip
        assert await history(store, tenant, "right2") == [
            *common, "right/in", "right/out", "right2/in", "right2/out",
        ]  # fmt: skip
        left, right = await context(store, tenant, "left2"), await context(store, tenant, "right2")
        assert left.root_id == right.root_id
        assert left.end.thread_id != right.end.thread_id

    async def test_a_branch_of_a_branch_has_the_history_of_its_ancestors(
        self, store: ResponseStore, tenant: str
    ) -> None:
        """M10: each branches from the middle of the one before."""
        await turn(store, tenant, "0")
        for number in range(1, 8):
            previous = str(number - 1)
            await turn(store, tenant, f"other-{number}", after=previous)
            await turn(store, tenant, str(number), after=previous)
        ids = [f"{number}/{side}" for number in range(8) for side in ("in", "out")]
        assert await history(store, tenant, "7") == ids
        assert await history(store, tenant, "other-3") == [*ids[:6], "other-3/in", "other-3/out"]

    async def test_a_point_inside_an_ancestor_ends_the_history_there(
        self, store: ResponseStore, tenant: str
    ) -> None:
        """A branch named with a position before its own beginning means its ancestor at that place."""
        await turn(store, tenant, "r1")
        await turn(store, tenant, "r2", after="r1")
        await turn(store, tenant, "tip", after="r2")
        await turn(store, tenant, "branch", after="r2")
        branch = (await context(store, tenant, "branch")).end
        inside = ThreadPoint(branch.thread_id, (await context(store, tenant, "r1")).end.position)
        await store.finish(an_end(await store.accept(a_response(tenant, "r3", after=inside))))
        assert await history(store, tenant, "r3") == ["r1/in", "r1/out", "r3/in", "r3/out"]

    async def test_of_many_concurrent_continuations_one_keeps_the_thread(
        self, store: ResponseStore, tenant: str
    ) -> None:
        """M10: the others branch; every history is right."""
        await turn(store, tenant, "r1")
        thread_id = (await context(store, tenant, "r1")).end.thread_id
        names = [f"c{number}" for number in range(20)]
        async with asyncio.timeout(20):
            await asyncio.gather(*(turn(store, tenant, name, after="r1") for name in names))
        found = [await context(store, tenant, name) for name in names]
        assert [c.end.thread_id for c in found].count(thread_id) == 1
        assert len({c.end.thread_id for c in found}) == len(names)
        assert {c.root_id for c in found} == {thread_id}
        for name in names:
            expected = ["r1/in", "r1/out", f"{name}/in", f"{name}/out"]
            assert await history(store, tenant, name) == expected

    async def test_continuing_a_running_response_leaves_it_its_place(
        self, store: ResponseStore, tenant: str
    ) -> None:
        """M10: the continuation branches after the input; the output still follows its input."""
        running = await begin(store, tenant, "r1")
        early = await begin(store, tenant, "early", after="r1")
        await store.finish(an_end(running))
        await store.finish(an_end(early))
        assert await history(store, tenant, "r1") == ["r1/in", "r1/out"]
        assert await history(store, tenant, "early") == ["r1/in", "early/in", "early/out"]
        await turn(store, tenant, "r2", after="r1")
        after, before = await context(store, tenant, "r2"), await context(store, tenant, "r1")
        assert after.end.thread_id == before.end.thread_id

    async def test_find_items_gives_the_newest_of_an_id(
        self, store: ResponseStore, tenant: str
    ) -> None:
        """Whole items, from input and output, of any thread."""
        old, new = an_item("same"), StoredItem("same", "function_call", b"{}", None, "call_1")
        await store.accept(a_response(tenant, "r1", input=[old, an_item("one")]))
        lease = await store.accept(a_response(tenant, "r2", input=[]))
        await store.finish(an_end(lease, output=[new]))
        found = await store.find_items(tenant, ["same", "one", "same", "none"])
        assert found == {"same": new, "one": an_item("one")}
        assert await store.delete(tenant, "r2")
        assert await store.find_items(tenant, ["same"]) == {"same": old}


class LeaseContract:
    """Who may finish, and what goes when a response goes."""

    async def test_a_stale_token_changes_nothing(self, store: ResponseStore, tenant: str) -> None:
        """P4: finishing is refused, abandoning does nothing."""
        lease = await begin(store, tenant, "r1")
        stale = Lease(tenant, "r1", lease.token - 1)
        with pytest.raises(LeaseLost):
            await store.finish(an_end(stale))
        await store.abandon(stale)
        assert await history(store, tenant, "r1") == ["r1/in"]
        await store.finish(an_end(lease))
        assert await history(store, tenant, "r1") == ["r1/in", "r1/out"]

    async def test_a_response_is_finished_once(self, store: ResponseStore, tenant: str) -> None:
        """P4: of several that finish at once, one does; later ones lose, and so does abandoning."""
        lease = await begin(store, tenant, "r1")
        async with asyncio.timeout(10):
            results = await asyncio.gather(
                *(store.finish(an_end(lease)) for _ in range(5)), return_exceptions=True
            )
        assert sorted(type(result).__name__ for result in results) == ["LeaseLost"] * 4 + [
            "NoneType"
        ]
        await store.abandon(lease)
        assert await history(store, tenant, "r1") == ["r1/in", "r1/out"]

    async def test_finishing_what_there_never_was_is_refused(
        self, store: ResponseStore, tenant: str
    ) -> None:
        """P4: no row, no lease."""
        with pytest.raises(LeaseLost):
            await store.finish(an_end(Lease(tenant, "r1", 1)))

    async def test_an_abandoned_response_leaves_nothing(
        self, store: ResponseStore, tenant: str
    ) -> None:
        """P5: neither row nor input; the next continuation keeps the thread as if it had not been."""
        await turn(store, tenant, "r1")
        lease = await begin(store, tenant, "gone", after="r1")
        await store.abandon(lease)
        await store.abandon(lease)
        assert await store.get(tenant, "gone") is None
        assert await store.find_items(tenant, ["gone/in"]) == {}
        await turn(store, tenant, "r2", after="r1")
        after, before = await context(store, tenant, "r2"), await context(store, tenant, "r1")
        assert after.end.thread_id == before.end.thread_id
        assert await history(store, tenant, "r2") == ["r1/in", "r1/out", "r2/in", "r2/out"]

    async def test_a_branch_of_an_abandoned_response_sees_nothing_of_its_successor(
        self, store: ResponseStore, tenant: str
    ) -> None:
        """M10: places in a thread are not used twice."""
        await turn(store, tenant, "r1")
        lease = await begin(store, tenant, "gone", after="r1")
        await turn(store, tenant, "early", after="gone")
        await store.abandon(lease)
        await turn(store, tenant, "r2", after="r1")
        assert await history(store, tenant, "early") == [
            "r1/in", "r1/out", "early/in", "early/out",
        ]  # fmt: skip

    async def test_a_deleted_response_takes_its_content_and_spares_its_descendants(
        self, store: ResponseStore, tenant: str
    ) -> None:
        """P7: later turns and branches go on without it."""
        await turn(store, tenant, "r1")
        await turn(store, tenant, "r2", after="r1")
        await turn(store, tenant, "r3", after="r2")
        await turn(store, tenant, "branch", after="r2")
        assert await store.delete(tenant, "r2") is True
        assert await store.delete(tenant, "r2") is False
        assert await store.get(tenant, "r2") is None
        assert await store.load_context(tenant, "r2") is None
        assert await store.find_items(tenant, ["r2/in", "r2/out"]) == {}
        await turn(store, tenant, "r4", after="r3")
        assert await history(store, tenant, "r4") == [
            "r1/in", "r1/out", "r3/in", "r3/out", "r4/in", "r4/out",
        ]  # fmt: skip
        assert await history(store, tenant, "branch") == [
            "r1/in", "r1/out", "branch/in", "branch/out",
        ]  # fmt: skip

    async def test_deleting_the_first_or_the_last_keeps_the_others(
        self, store: ResponseStore, tenant: str
    ) -> None:
        """P7: no end of a thread is special."""
        await turn(store, tenant, "r1")
        await turn(store, tenant, "r2", after="r1")
        await turn(store, tenant, "r3", after="r2")
        assert await store.delete(tenant, "r3")
        assert await store.delete(tenant, "r1")
        await turn(store, tenant, "r4", after="r2")
        assert await history(store, tenant, "r4") == ["r2/in", "r2/out", "r4/in", "r4/out"]

    async def test_a_running_response_that_is_deleted_cannot_be_finished(
        self, store: ResponseStore, tenant: str
    ) -> None:
        """P7: its output is not stored either; the thread can be continued."""
        await turn(store, tenant, "r1")
        lease = await begin(store, tenant, "gone", after="r1")
        assert await store.delete(tenant, "gone")
        with pytest.raises(LeaseLost):
            await store.finish(an_end(lease))
        await turn(store, tenant, "r2", after="r1")
        assert await history(store, tenant, "r2") == ["r1/in", "r1/out", "r2/in", "r2/out"]

    async def test_deleting_while_finishing_leaves_no_content(
        self, store: ResponseStore, tenant: str
    ) -> None:
        """P7: whichever comes first, nothing of the response is left."""
        for number in range(25):
            name = f"r{number}"
            lease = await begin(store, tenant, name)
            async with asyncio.timeout(10):
                finished, deleted = await asyncio.gather(
                    store.finish(an_end(lease)), store.delete(tenant, name), return_exceptions=True
                )
            assert finished is None or isinstance(finished, LeaseLost)
            assert deleted is True
            assert await store.find_items(tenant, [f"{name}/in", f"{name}/out"]) == {}


class ListContract:
    """Pages."""

    @pytest.mark.parametrize("order", ["asc", "desc"])
    async def test_pages_of_responses_follow_each_other(
        self, store: ResponseStore, tenant: str, order: Order
    ) -> None:
        """H2: every response once, in order of creation, running ones included."""
        names = [f"r{number}" for number in range(6)]
        for name in names:
            await turn(store, tenant, name)
        await begin(store, tenant, "r6")
        expected = [*names, "r6"] if order == "asc" else ["r6", *reversed(names)]
        seen: list[str] = []
        for remaining in (4, 1, 0):
            page = await store.list_responses(
                tenant, limit=3, after=seen[-1] if seen else None, order=order, model=None
            )
            seen += [response.id for response in page.responses]
            assert page.has_more is (remaining > 0)
            assert len(seen) == 7 - remaining
        assert seen == expected

    async def test_listed_responses_are_whole(self, store: ResponseStore, tenant: str) -> None:
        """The same that `get` returns."""
        lease = await begin(store, tenant, "r1")
        await store.finish(an_end(lease, output=[an_item("b"), an_item("a")]))
        await begin(store, tenant, "r2", after="r1")
        page = await store.list_responses(tenant, limit=9, after=None, order="asc", model=None)
        assert page.responses == [await store.get(tenant, name) for name in ("r1", "r2")]

    async def test_responses_of_one_model_can_be_listed(
        self, store: ResponseStore, tenant: str
    ) -> None:
        """H2: the cursor may be of another model."""
        for number in range(4):
            model = "large" if number % 2 else "small"
            await store.accept(a_response(tenant, f"r{number}", model=model))
        page = await store.list_responses(tenant, limit=1, after=None, order="asc", model="large")
        assert ([r.id for r in page.responses], page.has_more) == (["r1"], True)
        page = await store.list_responses(tenant, limit=1, after="r2", order="asc", model="large")
        assert ([r.id for r in page.responses], page.has_more) == (["r3"], False)

    async def test_an_unknown_cursor_is_refused(self, store: ResponseStore, tenant: str) -> None:
        """H2: missing, deleted, of another list: an InvalidRequest that names `after`."""
        await turn(store, tenant, "r1")
        await turn(store, tenant, "r2", after="r1")
        await turn(store, tenant, "gone")
        await store.delete(tenant, "gone")
        for cursor in ("nothing", "gone"):
            with pytest.raises(InvalidRequest) as caught:
                await store.list_responses(tenant, limit=1, after=cursor, order="desc", model=None)
            assert caught.value.param == "after"
        for cursor in ("nothing", "r1/in", "r2/out"):
            with pytest.raises(InvalidRequest) as caught:
                await store.list_input_items(tenant, "r2", limit=1, after=cursor, order="asc")
            assert caught.value.param == "after"

    async def test_an_empty_list_is_a_page(self, store: ResponseStore, tenant: str) -> None:
        """H2: also after the last one."""
        page = await store.list_responses(tenant, limit=1, after=None, order="asc", model=None)
        assert (page.responses, page.has_more) == ([], False)
        await turn(store, tenant, "r1")
        page = await store.list_responses(tenant, limit=1, after="r1", order="asc", model=None)
        assert (page.responses, page.has_more) == ([], False)

    @pytest.mark.parametrize("order", ["asc", "desc"])
    async def test_pages_of_input_follow_each_other(
        self, store: ResponseStore, tenant: str, order: Order
    ) -> None:
        """H2: the response's own input only, each item once."""
        await turn(store, tenant, "r1")
        names = ["c", "a", "b", "e", "d"]
        point = (await context(store, tenant, "r1")).end
        new = a_response(tenant, "r2", input=[an_item(name) for name in names], after=point)
        await store.finish(an_end(await store.accept(new)))
        seen: list[str] = []
        for has_more in (True, True, False):
            page = await store.list_input_items(
                tenant, "r2", limit=2, after=seen[-1] if seen else None, order=order
            )
            assert page is not None
            assert page.has_more is has_more
            assert page.items == [f'{{"id":"{name}"}}'.encode() for name in page.ids]
            seen += page.ids
        assert seen == (names if order == "asc" else names[::-1])

    @pytest.mark.parametrize("order", ["asc", "desc"])
    async def test_following_a_cursor_ends_even_if_ids_repeat(
        self, store: ResponseStore, tenant: str, order: Order
    ) -> None:
        """H2: a cursor never leads back."""
        await store.accept(
            a_response(tenant, "r1", input=[an_item(name) for name in ("x", "a", "x", "b")])
        )
        after: str | None = None
        for _ in range(5):
            page = await store.list_input_items(tenant, "r1", limit=1, after=after, order=order)
            assert page is not None
            if not page.has_more:
                break
            after = page.ids[-1]
        else:
            pytest.fail("the pages do not end")


@dataclass
class _Told:
    """The simple model of a response: what it said, what it continued and how far that was then."""

    name: str
    before: _Told | None
    before_was_finished: bool
    input: list[str]
    output: list[str] = field(default_factory=list)
    lease: Lease | None = None
    state: str = "running"

    def history(self, *, with_output: bool) -> list[str]:
        earlier = self.before.history(with_output=self.before_was_finished) if self.before else []
        if self.state == "gone":
            return earlier
        return earlier + self.input + (self.output if with_output else [])


_STEPS = st.lists(
    st.tuples(
        st.sampled_from(["accept", "accept", "accept", "finish", "finish", "abandon", "delete"]),
        st.integers(0, 30),
        st.integers(0, 3),
    ),
    min_size=3,
    max_size=50,
)


class RandomTreeContract:
    """Any sequence of operations gives the histories of a simple model."""

    @settings(
        max_examples=80,
        deadline=None,
        suppress_health_check=[
            HealthCheck.function_scoped_fixture,
            HealthCheck.differing_executors,
        ],
    )
    @given(steps=_STEPS)
    async def test_any_tree_has_the_histories_of_the_simple_model(
        self, store: ResponseStore, steps: list[tuple[str, int, int]]
    ) -> None:
        """M2, M10, P7: accept, finish, abandon, delete anywhere, in any order."""
        tenant = f"tree-{uuid.uuid4().hex}"
        told: list[_Told] = []
        for number, (step, which, count) in enumerate(steps):
            live = [response for response in told if response.state != "gone"]
            chosen = live[which % len(live)] if live and which else None
            if step == "accept":
                told.append(await _accept(store, tenant, str(number), chosen, count))
            elif chosen is not None:
                await _change(store, tenant, chosen, step, count)
        for response in told:
            found = await store.load_context(tenant, response.name)
            if response.state == "gone":
                assert found is None
            else:
                expected = response.history(with_output=True)
                assert await history(store, tenant, response.name) == expected


async def _accept(
    store: ResponseStore, tenant: str, name: str, before: _Told | None, count: int
) -> _Told:
    told = _Told(
        name,
        before,
        before is not None and before.state == "finished",
        [f"{name}/in{number}" for number in range(count)],
    )
    point = None if before is None else (await context(store, tenant, before.name)).end
    new = a_response(tenant, name, input=[an_item(i) for i in told.input], after=point)
    told.lease = await store.accept(new)
    return told


async def _change(store: ResponseStore, tenant: str, told: _Told, step: str, count: int) -> None:
    assert told.lease is not None
    if step == "delete":
        assert await store.delete(tenant, told.name)
        told.state = "gone"
    elif step == "abandon":
        await store.abandon(told.lease)
        told.state = "gone" if told.state == "running" else told.state
    elif told.state == "running":
        told.output = [f"{told.name}/out{number}" for number in range(count)]
        await store.finish(an_end(told.lease, output=[an_item(i) for i in told.output]))
        told.state = "finished"
    else:
        with pytest.raises(LeaseLost):
            await store.finish(an_end(told.lease))


class ResponseStoreContract(
    ReadingContract, HistoryContract, LeaseContract, ListContract, RandomTreeContract
):
    """All of it; subclass it as `Test…` in a module with a `store` fixture."""
