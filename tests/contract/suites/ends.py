"""Who may finish, and what goes when a response goes."""

from __future__ import annotations

import asyncio

import pytest

from engine.errors import LeaseLost
from engine.ports import Lease, ResponseStore
from tests.support.stored import an_end, begin, context, history, turn


class EndContract:
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
