"""Asking a response to end."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from engine.ports import CancelAsked, Store
from tests.contract.suites.queue import claim, queue
from tests.support.stored import a_response, an_end, begin, turn


class CancelContract:
    """Cancel reaches the worker that runs it, or nobody runs it."""

    async def test_a_running_response_is_reported_to_its_worker(
        self, store: Store, tenant: str
    ) -> None:
        """Until it ends; to nobody else."""
        lease = await store.accept(a_response(tenant, "r1", worker="a/0#1"))
        await begin(store, tenant, "r2")
        assert await store.cancelled("a/0#1") == []
        asked = await store.ask_cancel(tenant, "r1", "b/0#1", 30.0)
        assert asked == CancelAsked("in_progress")
        assert await store.cancelled("a/0#1") == [lease]
        assert await store.cancelled("b/0#1") == await store.cancelled("worker-1") == []
        assert await store.ask_cancel(tenant, "r1", "b/0#1", 30.0) == asked
        await store.finish(an_end(lease))
        assert await store.cancelled("a/0#1") == []

    async def test_a_queued_response_is_handed_to_who_asks(self, store: Store, tenant: str) -> None:
        """It is not handed out again; it was queued when the cancel met it."""
        await queue(store, tenant, "r1")
        asked = await store.ask_cancel(tenant, "r1", "a/0#1", 30.0)
        assert asked is not None
        assert asked.claim is not None
        assert (asked.status, asked.claim.cancel, asked.claim.fresh) == ("queued", True, True)
        assert await claim(store, 5) == []
        await store.finish(an_end(asked.claim.lease))

    async def test_what_is_finished_or_unknown_is_told_so(self, store: Store, tenant: str) -> None:
        """X1: a foreign one is unknown."""
        await turn(store, tenant, "r1")
        await begin(store, tenant, "r2")
        assert await store.ask_cancel(tenant, "r1", "w", 30.0) == CancelAsked("completed")
        assert await store.ask_cancel(tenant, "none", "w", 30.0) is None
        assert await store.ask_cancel(f"{tenant}-thief", "r2", "w", 30.0) is None
        assert await store.cancelled("worker-1") == []

    async def test_a_cancel_outlives_the_worker_that_did_not_hear_it(
        self, store: Store, tenant: str, wait: Callable[[float], Awaitable[None]]
    ) -> None:
        """P4: who takes the run over knows, and so does who takes it from the queue."""
        lease = await store.accept(a_response(tenant, "r1", background=True))
        await store.ask_cancel(tenant, "r1", "w", 30.0)
        await store.release(lease)
        [released] = await claim(store, 1)
        assert released.cancel
        await wait(31)
        [taken] = await store.claim("w/0#2", 30.0, queued=1, expired=1)
        assert (taken.cancel, taken.fresh) == (True, False)

    async def test_of_cancel_and_claim_one_gets_it(self, store: Store, tenant: str) -> None:
        """P4: and the other knows: never two, never none."""
        for number in range(20):
            name = f"r{number}"
            await queue(store, tenant, name)
            async with asyncio.timeout(10):
                claims, asked = await asyncio.gather(
                    claim(store, 1, "w/0#1"), store.ask_cancel(tenant, name, "w/1#1", 30.0)
                )
            assert asked is not None
            if asked.claim is None:
                claims = claims or await claim(store, 1, "w/0#1")
                assert await store.cancelled("w/0#1") == [claims[0].lease]
                await store.finish(an_end(claims[0].lease))
            else:
                assert claims == []
                await store.finish(an_end(asked.claim.lease))
