"""Threads: continuing, branching, concurrency."""

from __future__ import annotations

import asyncio

from engine.ports import ResponseStore, StoredItem, ThreadPoint
from tests.support.stored import a_response, an_end, an_item, begin, context, history, turn


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

    async def test_a_tree_of_threads_has_the_root_that_it_was_begun_with(
        self, store: ResponseStore, tenant: str
    ) -> None:
        """Promise 5: over branches, and whatever a continuation says; affinity depends on it."""
        await turn(store, tenant, "r1", root="of this tree")
        await turn(store, tenant, "left", after="r1", root="of another")
        await turn(store, tenant, "right", after="r1")
        roots = [(await context(store, tenant, id)).root_id for id in ("r1", "left", "right")]
        assert roots == ["of this tree"] * 3

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

    async def test_items_are_read_by_their_place_in_a_history(
        self, store: ResponseStore, tenant: str
    ) -> None:
        """M10: whatever has their id, before, behind and beside them; over branches, and never another's."""
        first, again, other = (StoredItem("same", "message", b"%d" % n, None) for n in range(3))
        await turn(store, tenant, "r1", input=[first])
        await turn(store, tenant, "left", after="r1", input=[again])
        await turn(store, tenant, "right", after="r1", input=[other])
        await turn(store, tenant, "elsewhere", input=[other])
        left = await context(store, tenant, "left")
        right = await context(store, tenant, "right")
        positions = [item.position for item in left.items]
        assert positions == [item.position for item in right.items] == [0, 1, 2, 3]
        wanted = [*positions, positions[0], 4, 99]
        common = {0: first, 1: an_item("r1/out")}
        assert await store.read_items(tenant, left.end, wanted) == {
            **common, 2: again, 3: an_item("left/out"),
        }  # fmt: skip
        assert await store.read_items(tenant, right.end, wanted) == {
            **common, 2: other, 3: an_item("right/out"),
        }  # fmt: skip
        before = (await context(store, tenant, "r1")).end
        assert await store.read_items(tenant, before, wanted) == common
        inside = ThreadPoint(right.end.thread_id, before.position)
        assert await store.read_items(tenant, inside, wanted) == common
        assert await store.read_items(tenant, left.end, [2]) == {2: again}
        assert await store.read_items(tenant, left.end, []) == {}
        assert await store.read_items(f"{tenant}-thief", left.end, wanted) == {}
        assert await store.delete(tenant, "r1")
        assert set(await store.read_items(tenant, left.end, wanted)) == {2, 3}
        assert await store.delete(tenant, "left")
        assert await store.read_items(tenant, left.end, wanted) == {}
