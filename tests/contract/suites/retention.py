"""What is removed when its time has come, and all of a tenant."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from engine.errors import LeaseLost, UnknownPreviousResponse
from engine.ports import Idempotency, Store
from tests.support.stored import (
    a_response,
    an_end,
    begin,
    context,
    history,
    some_events,
    turn,
)


async def kept(
    store: Store, tenant: str, name: str, seconds: float | None, *, after: str | None = None
) -> None:
    """Accept and finish a response that is kept for so long."""
    point = None if after is None else (await context(store, tenant, after)).end
    lease = await store.accept(a_response(tenant, name, after=point, keep_seconds=seconds))
    await store.finish(an_end(lease))


class RetentionContract:
    """Removal by time and by tenant."""

    async def test_what_has_had_its_time_goes_and_its_descendants_stay(
        self, store: Store, tenant: str, wait: Callable[[float], Awaitable[None]]
    ) -> None:
        """P7: counted from creation; what is kept for ever stays."""
        await kept(store, tenant, "r1", 100)
        await kept(store, tenant, "r2", 300, after="r1")
        await kept(store, tenant, "r3", None, after="r2")
        assert await store.remove_expired(limit=10) == 0
        await wait(101)
        assert await store.remove_expired(limit=10) == 1
        assert await store.get(tenant, "r1") is None
        assert await store.find_items(tenant, ["r1/in", "r1/out"]) == {}
        await wait(200)
        assert await store.remove_expired(limit=10) == 1
        await turn(store, tenant, "r4", after="r3")
        assert await history(store, tenant, "r4") == ["r3/in", "r3/out", "r4/in", "r4/out"]

    async def test_what_runs_is_left_until_it_ends(
        self, store: Store, tenant: str, wait: Callable[[float], Awaitable[None]]
    ) -> None:
        """P4: however old it is."""
        lease = await store.accept(a_response(tenant, "r1", keep_seconds=1, lease_seconds=99))
        await store.accept(a_response(tenant, "r2", keep_seconds=1, queued=True))
        await wait(5)
        assert await store.remove_expired(limit=10) == 0
        await store.finish(an_end(lease))
        assert await store.remove_expired(limit=10) == 1
        assert await store.get(tenant, "r2") is not None

    async def test_removal_goes_in_batches_over_all_tenants(
        self, store: Store, tenant: str, wait: Callable[[float], Awaitable[None]]
    ) -> None:
        """No more than was asked for, until there is nothing left."""
        for number in range(7):
            await kept(store, f"{tenant}-{number % 3}", f"r{number}", 1)
        await wait(2)
        counts = [await store.remove_expired(limit=3) for _ in range(4)]
        assert counts == [3, 3, 1, 0]

    async def test_several_that_remove_at_once_do_not_count_twice(
        self, store: Store, tenant: str, wait: Callable[[float], Awaitable[None]]
    ) -> None:
        """They leave to each other what the other is at."""
        for number in range(20):
            await kept(store, tenant, f"r{number}", 1)
        await wait(2)
        async with asyncio.timeout(20):
            counts = await asyncio.gather(*(store.remove_expired(limit=20) for _ in range(4)))
            counts.append(await store.remove_expired(limit=20))
        assert sum(counts) == 20

    async def test_a_tenant_is_removed_whole(self, store: Store, tenant: str) -> None:
        """Erasure: running ones, logs and keys too; nobody else's; in batches."""
        other = f"{tenant}-other"
        await turn(store, other, "r1")
        await turn(store, tenant, "r1")
        await turn(store, tenant, "r2", after="r1")
        await turn(store, tenant, "branch", after="r1")
        key = Idempotency("key", b"")
        lease = await store.accept(
            a_response(
                tenant, "r3", streamed=True, events=some_events(0, 1), idempotency=key
            )
        )  # fmt: skip
        counts = [await store.remove_tenant(tenant, limit=3) for _ in range(3)]
        assert counts == [3, 1, 0]
        page = await store.list_responses(tenant, limit=9, after=None, order="asc", model=None)
        assert page.responses == []
        with pytest.raises(LeaseLost):
            await store.finish(an_end(lease))
        await store.accept(a_response(tenant, "r3", idempotency=key))
        found = await store.read_events(tenant, "r3", after=-1, limit=9)
        assert found is not None
        assert found.batches == []
        assert await history(store, other, "r1") == ["r1/in", "r1/out"]

    async def test_a_thread_goes_with_its_last_response(self, store: Store, tenant: str) -> None:
        """P7: not while a branch needs it; then nothing can be attached to it any more."""
        await turn(store, tenant, "r1")
        point = (await context(store, tenant, "r1")).end
        await turn(store, tenant, "main", after="r1")
        await turn(store, tenant, "branch", after="r1")
        await store.delete(tenant, "r1")
        await store.delete(tenant, "main")
        lease = await store.accept(a_response(tenant, "late", after=point))
        await store.abandon(lease)
        await store.delete(tenant, "branch")
        with pytest.raises(UnknownPreviousResponse):
            await store.accept(a_response(tenant, "late", after=point))

    async def test_continuing_while_it_is_deleted_gives_a_whole_history_or_a_refusal(
        self, store: Store, tenant: str
    ) -> None:
        """P7: never a continuation that lost what came before the deleted one."""
        for number in range(20):
            root, leaf, late = f"root-{number}", f"leaf-{number}", f"late-{number}"
            await turn(store, tenant, root)
            await turn(store, tenant, f"other-{number}", after=root)
            await turn(store, tenant, leaf, after=root)  # alone in its branch
            point = (await context(store, tenant, leaf)).end
            async with asyncio.timeout(10):
                deleted, lease = await asyncio.gather(
                    store.delete(tenant, leaf),
                    store.accept(a_response(tenant, late, after=point)),
                    return_exceptions=True,
                )
            assert deleted is True
            if isinstance(lease, BaseException):
                assert isinstance(lease, UnknownPreviousResponse)
                continue
            assert await history(store, tenant, late) == [
                f"{root}/in", f"{root}/out", f"{late}/in",
            ]  # fmt: skip

    async def test_deleting_what_is_being_logged_leaves_no_log(
        self, store: Store, tenant: str
    ) -> None:
        """P7: whichever comes first."""
        for _ in range(10):
            lease = await store.accept(a_response(tenant, "r1", streamed=True))
            async with asyncio.timeout(10):
                await asyncio.gather(
                    store.append(lease, some_events(0, 5)),
                    store.delete(tenant, "r1"),
                    return_exceptions=True,
                )
            await begin(store, tenant, "r1")
            found = await store.read_events(tenant, "r1", after=-1, limit=9)
            assert found is not None
            assert found.batches == []
            await store.delete(tenant, "r1")
