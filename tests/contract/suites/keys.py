"""Idempotency keys: a request that is sent again is accepted once."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from engine.errors import AlreadyAccepted, InvalidRequest
from engine.ports import Idempotency, Lease, Store
from tests.support.stored import a_response, an_end, context, history, turn


async def keyed(
    store: Store, tenant: str, name: str, *, digest: bytes = b"d", key: str = "key", **more: Any
) -> Lease:
    """Accept a request with an Idempotency-Key."""
    return await store.accept(
        a_response(tenant, name, idempotency=Idempotency(key, digest), **more)
    )


class KeyContract:
    """An Idempotency-Key is that of one response."""

    async def test_a_key_is_that_of_the_first_and_says_which(
        self, store: Store, tenant: str
    ) -> None:
        """The second leaves no trace; the first stays as it is, running or finished."""
        lease = await keyed(store, tenant, "r1", digest=b"\x00first")
        for _ in range(2):
            with pytest.raises(AlreadyAccepted) as caught:
                await keyed(store, tenant, "r2", digest=b"second")
            assert (caught.value.response_id, caught.value.digest) == ("r1", b"\x00first")
            assert await store.get(tenant, "r2") is None
            assert await store.find_items(tenant, ["r2/in"]) == {}
            if await context(store, tenant, "r1") and lease.token:
                await store.finish(an_end(lease), again=True)
        await keyed(store, tenant, "r2", key="other")
        await keyed(store, f"{tenant}-other", "r1")

    async def test_a_refused_repetition_does_not_touch_the_thread(
        self, store: Store, tenant: str
    ) -> None:
        """M10: the next continuation keeps the thread as if it had not been."""
        await turn(store, tenant, "r1")
        point = (await context(store, tenant, "r1")).end
        lease = await keyed(store, tenant, "r2", after=point)
        await store.finish(an_end(lease))
        point = (await context(store, tenant, "r2")).end
        with pytest.raises(AlreadyAccepted):
            await keyed(store, tenant, "r3", after=point)
        await turn(store, tenant, "r4", after="r2")
        assert (await context(store, tenant, "r4")).end.thread_id == point.thread_id
        assert len(await history(store, tenant, "r4")) == 6

    @pytest.mark.parametrize("gone", ["abandon", "delete"])
    async def test_a_key_is_free_when_its_response_is_gone(
        self, store: Store, tenant: str, gone: str
    ) -> None:
        """A retry of what was refused or removed runs."""
        lease = await keyed(store, tenant, "r1")
        if gone == "abandon":
            await store.abandon(lease)
        else:
            await store.delete(tenant, "r1")
        await keyed(store, tenant, "r2")

    async def test_of_twenty_at_once_one_is_accepted(self, store: Store, tenant: str) -> None:
        """The others learn which; several keys at once do not hinder each other."""
        names = [(f"k{number % 3}", f"r{number}") for number in range(60)]
        async with asyncio.timeout(20):
            results = await asyncio.gather(
                *(keyed(store, tenant, name, key=key) for key, name in names),
                return_exceptions=True,
            )
        accepted = {
            key: result.response_id
            for (key, _), result in zip(names, results, strict=True)
            if isinstance(result, Lease)
        }
        assert sum(isinstance(result, Lease) for result in results) == len(accepted) == 3
        for (key, _), result in zip(names, results, strict=True):
            if not isinstance(result, Lease):
                assert isinstance(result, AlreadyAccepted)
                assert result.response_id == accepted[key]
        page = await store.list_responses(tenant, limit=99, after=None, order="asc", model=None)
        assert {response.id for response in page.responses} == set(accepted.values())

    @pytest.mark.parametrize("key", ["nul\0", "surrogate\ud800", "x" * 600])
    async def test_a_key_that_cannot_be_stored_is_refused(
        self, store: Store, tenant: str, key: str
    ) -> None:
        """H1: and not looked up as another."""
        with pytest.raises(InvalidRequest):
            await keyed(store, tenant, "r1", key=key)
