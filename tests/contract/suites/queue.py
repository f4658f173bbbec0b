"""The queue: who is served, and in which order."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from engine.errors import LeaseLost
from engine.ports import Claim, Store
from tests.support.stored import a_response, an_end, begin, history, some_events


async def queue(store: Store, tenant: str, *names: str) -> None:
    """Put background responses into the queue, one after the other."""
    for name in names:
        await store.accept(
            a_response(tenant, name, background=True, queued=True, work=name.encode())
        )


async def claim(store: Store, count: int, worker: str = "w/0#1") -> list[Claim]:
    """Take so many from the queue."""
    return await store.claim(worker, 30.0, queued=count, expired=0)


def names_of(claims: list[Claim]) -> list[str]:
    """Return the ids of the responses that were claimed, in order."""
    return [claim.lease.response_id for claim in claims]


class QueueContract:
    """Runs that wait for a worker."""

    async def test_a_queued_response_waits_for_a_claim_and_is_then_in_progress(
        self, store: Store, tenant: str
    ) -> None:
        """R2: queued, in_progress, terminal; its own lease says nothing until it is claimed."""
        new = a_response(tenant, "r1", background=True, queued=True, streamed=True, work=b"work")
        lease = await store.accept(new)
        assert lease.token == 0
        found = await store.get(tenant, "r1")
        assert found is not None
        assert found.status == "queued"
        with pytest.raises(LeaseLost):
            await store.finish(an_end(lease))
        with pytest.raises(LeaseLost):
            await store.append(lease, some_events(0, 0))
        await store.abandon(lease)
        assert await store.renew([lease], 30.0) == [lease]
        [taken] = await claim(store, 5)
        assert (taken.attempts, taken.fresh, taken.background, taken.streamed, taken.work) == (
            1, True, True, True, b"work",
        )  # fmt: skip
        found = await store.get(tenant, "r1")
        assert found is not None
        assert (found.status, found.head) == ("in_progress", new.head)
        await store.finish(an_end(taken.lease))
        assert await history(store, tenant, "r1") == ["r1/in", "r1/out"]

    async def test_the_oldest_is_served_first(self, store: Store, tenant: str) -> None:
        """Within a tenant; no more than were asked for."""
        await queue(store, tenant, "c", "a", "b", "d")
        assert names_of(await claim(store, 0)) == []
        assert names_of(await claim(store, 3)) == ["c", "a", "b"]
        assert names_of(await claim(store, 3)) == ["d"]

    async def test_a_tenant_with_much_to_do_does_not_keep_others_waiting(
        self, store: Store, tenant: str
    ) -> None:
        """The tenant that has the fewest background runs is next, whoever came first."""
        await queue(store, f"{tenant}-a", *(f"a{number}" for number in range(6)))
        await queue(store, f"{tenant}-b", "b0", "b1")
        await queue(store, f"{tenant}-c", "c0")
        assert names_of(await claim(store, 4)) == ["a0", "b0", "c0", "a1"]
        await queue(store, f"{tenant}-c", "c1")
        assert names_of(await claim(store, 3)) == ["b1", "c1", "a2"]

    async def test_foreground_runs_do_not_count_against_a_tenant(
        self, store: Store, tenant: str
    ) -> None:
        """Else who asks much would never see its background responses made."""
        for number in range(3):
            await begin(store, f"{tenant}-a", f"front-{number}")
        await queue(store, f"{tenant}-a", "a0")
        await queue(store, f"{tenant}-b", "b0")
        assert names_of(await claim(store, 1)) == ["a0"]

    async def test_what_was_deleted_is_not_handed_out(self, store: Store, tenant: str) -> None:
        """P7."""
        await queue(store, tenant, "r1", "r2")
        assert await store.delete(tenant, "r1")
        assert names_of(await claim(store, 5)) == ["r2"]

    async def test_a_queue_is_worked_off_by_several_at_once(
        self, store: Store, tenant: str, wait: Callable[[float], Awaitable[None]]
    ) -> None:
        """Each exactly once, though one worker dies with what it has."""
        await queue(store, tenant, *(f"r{number}" for number in range(40)))
        died = await claim(store, 5, "dead/0#1")
        done: list[str] = []

        async def work(worker: str) -> None:
            while claims := await store.claim(worker, 300.0, queued=3, expired=3):
                for each in claims:
                    await store.finish(an_end(each.lease))
                    done.append(each.lease.response_id)

        async with asyncio.timeout(30):
            await asyncio.gather(*(work(f"w/{number}#1") for number in range(4)))
            await wait(31)
            await work("w/0#1")
        assert len(done) == len(set(done)) == 40
        for each in died:
            with pytest.raises(LeaseLost):
                await store.finish(an_end(each.lease))

    async def test_who_waits_is_counted_over_all_tenants(self, store: Store, tenant: str) -> None:
        """An operator sees how long the queue is; what is claimed waits no longer."""
        before = await store.waiting()
        await queue(store, tenant, "r1", "r2")
        await queue(store, f"{tenant}-2", "r3")
        assert (await store.waiting()).responses == before.responses + 3
        await claim(store, 2)
        assert (await store.waiting()).responses == before.responses + 1
