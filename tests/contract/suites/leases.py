"""Leases: renewing, taking over, inheriting, giving back (rule P4)."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from engine.errors import LeaseLost
from engine.ports import Claim, Lease, Store
from tests.support.stored import a_response, an_end, begin, history, some_events


async def take_over(store: Store, worker: str = "other/0#1") -> list[Claim]:
    """Claim everything whose lease ran out."""
    return await store.claim(worker, 30.0, queued=0, expired=100)


class LeaseContract:
    """Who runs what."""

    async def test_a_lease_that_ran_out_is_taken_over_once(
        self, store: Store, tenant: str, wait: Callable[[float], Awaitable[None]]
    ) -> None:
        """P4: not before its time; then with all that the run needs, under a new token."""
        work = b'{"\x00'
        lease = await store.accept(a_response(tenant, "r1", work=work, streamed=True))
        assert await take_over(store) == []
        await wait(31)
        [claim] = await take_over(store)
        assert claim == Claim(
            lease=Lease(tenant, "r1", lease.token + 1),
            attempts=2,
            background=False,
            streamed=True,
            cancel=False,
            fresh=False,
            head=b'{"id":"r1"}',
            work=work,
        )
        assert await take_over(store) == []
        await store.finish(an_end(claim.lease))

    async def test_a_late_owner_changes_nothing(
        self, store: Store, tenant: str, wait: Callable[[float], Awaitable[None]]
    ) -> None:
        """P4: it can neither finish, nor log, nor give up, nor give back; its lease is told lost."""
        old = await begin(store, tenant, "r1")
        await wait(31)
        [claim] = await take_over(store)
        with pytest.raises(LeaseLost):
            await store.finish(an_end(old))
        with pytest.raises(LeaseLost):
            await store.finish(an_end(old), again=True)
        with pytest.raises(LeaseLost):
            await store.append(old, some_events(0, 1))
        await store.abandon(old)
        await store.release(old)
        assert await store.renew([old], 30.0) == [old]
        assert await store.renew([claim.lease], 30.0) == []
        log = await store.read_events(tenant, "r1", after=-1, limit=100)
        assert log is not None
        assert (log.status, log.batches) == ("in_progress", [])
        await store.finish(an_end(claim.lease))
        with pytest.raises(LeaseLost):
            await store.finish(an_end(old), again=True)
        assert await history(store, tenant, "r1") == ["r1/in", "r1/out"]

    async def test_a_renewed_lease_lasts_from_then_on(
        self, store: Store, tenant: str, wait: Callable[[float], Awaitable[None]]
    ) -> None:
        """P4: many at once; what is finished, deleted or was never there is told lost."""
        names = [f"r{number}" for number in range(5)]
        leases = [await begin(store, tenant, name) for name in names]
        await store.finish(an_end(leases[1]))
        await store.delete(tenant, "r3")
        strange = [Lease(tenant, "r0", 7), Lease(f"{tenant}-thief", "r0", leases[0].token)]
        await wait(20)
        lost = await store.renew([*leases, *strange], 30.0)
        assert lost == [leases[1], leases[3], *strange]
        assert await store.renew([], 30.0) == []
        await wait(20)
        assert await take_over(store) == []
        await wait(11)
        assert {claim.lease.response_id for claim in await take_over(store)} == {"r0", "r2", "r4"}

    async def test_a_lease_that_ran_out_can_be_renewed_until_it_is_taken(
        self, store: Store, tenant: str, wait: Callable[[float], Awaitable[None]]
    ) -> None:
        """P4: a worker that was slow goes on if nobody needed to step in."""
        lease = await begin(store, tenant, "r1")
        await wait(100)
        assert await store.renew([lease], 30.0) == []
        assert await take_over(store) == []
        await store.finish(an_end(lease))

    async def test_no_more_is_taken_over_than_was_asked_for(
        self, store: Store, tenant: str, wait: Callable[[float], Awaitable[None]]
    ) -> None:
        """P4: the rest is there for the next."""
        for number in range(5):
            await begin(store, tenant, f"r{number}")
        await wait(31)
        first = await store.claim("w/0#1", 30.0, queued=9, expired=2)
        second = await store.claim("w/1#1", 30.0, queued=9, expired=9)
        names = [claim.lease.response_id for claim in first + second]
        assert (len(first), sorted(names)) == (2, [f"r{number}" for number in range(5)])

    async def test_concurrent_claims_never_take_the_same_run(
        self, store: Store, tenant: str, wait: Callable[[float], Awaitable[None]]
    ) -> None:
        """P4: expired and queued ones, by twelve workers."""
        for number in range(12):
            await begin(store, tenant, f"left-{number}")
        await wait(31)
        for number in range(24):
            await store.accept(a_response(tenant, f"q{number}", queued=True, background=True))
        async with asyncio.timeout(20):
            claims = await asyncio.gather(
                *(store.claim(f"w/{n}#1", 30.0, queued=2, expired=1) for n in range(12))
            )
            rest = await store.claim("w/0#1", 30.0, queued=99, expired=99)
        names = [claim.lease.response_id for taken in [*claims, rest] for claim in taken]
        assert len(names) == len(set(names)) == 36

    async def test_of_finish_and_take_over_one_wins(
        self, store: Store, tenant: str, wait: Callable[[float], Awaitable[None]]
    ) -> None:
        """P4: either the old owner finished, and nobody has the run, or it lost and changed nothing."""
        for number in range(20):
            name = f"r{number}"
            lease = await begin(store, tenant, name)
            await wait(31)
            async with asyncio.timeout(10):
                finished, claims = await asyncio.gather(
                    store.finish(an_end(lease)), take_over(store), return_exceptions=True
                )
            assert isinstance(claims, list)
            if finished is None:
                assert claims == []
                continue
            assert isinstance(finished, LeaseLost)
            assert await history(store, tenant, name) == [f"{name}/in"]
            await store.finish(an_end(claims[0].lease))

    async def test_a_new_life_inherits_what_the_old_one_left(
        self, store: Store, tenant: str
    ) -> None:
        """P4: its own worker's only, at once and not when the leases run out."""
        owners = ["a/0#1", "a/0#2", "a/0", "a/00#1", "a/1#1", "b/0#1", "a/0#now"]
        for owner in owners:
            await store.accept(a_response(tenant, owner, worker=owner))
        await store.accept(a_response(tenant, "queued", worker="a/0#1", queued=True))
        claims = await store.inherit("a/0#now", 30.0, limit=100)
        assert sorted(claim.lease.response_id for claim in claims) == ["a/0", "a/0#1", "a/0#2"]
        assert {(claim.attempts, claim.fresh) for claim in claims} == {(2, False)}
        assert await store.inherit("a/0#now", 30.0, limit=100) == []
        assert len(await store.inherit("a/0#next", 30.0, limit=3)) == 3
        assert len(await store.inherit("a/0#next", 30.0, limit=3)) == 1

    async def test_a_released_run_is_in_the_queue_again(self, store: Store, tenant: str) -> None:
        """P4: at its old place, with its attempt not counted; who released it has nothing more to say."""
        lease = await store.accept(a_response(tenant, "r1", background=True))
        await store.accept(a_response(tenant, "r2", background=True, queued=True))
        await store.release(lease)
        assert await store.renew([lease], 30.0) == [lease]
        with pytest.raises(LeaseLost):
            await store.finish(an_end(lease))
        with pytest.raises(LeaseLost):
            await store.append(lease, some_events(0, 1))
        [claim] = await store.claim("w/0#1", 30.0, queued=1, expired=1)
        assert (claim.lease.response_id, claim.attempts, claim.fresh) == ("r1", 1, True)
        assert claim.lease.token > lease.token
        found = await store.get(tenant, "r1")
        assert found is not None
        assert found.status == "in_progress"
