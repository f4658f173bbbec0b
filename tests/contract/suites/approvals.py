"""Requests for consent: asked with their response, answered once, given back by what was refused (T6)."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
import pytest

from engine.errors import AlreadyAccepted, AlreadyAnswered
from engine.ports import (
    Answer,
    AnswerClaim,
    AskedApproval,
    Idempotency,
    Lease,
    Store,
    StoredApproval,
)
from tests.support.stored import a_response, an_end, begin, turn

ODD = b'{"name":"\\u0000"}\x00'


async def asking(store: Store, tenant: str, name: str, *ids: str) -> None:
    """A response that asks for consent, and is over."""
    asked = tuple(AskedApproval(each, ODD) for each in ids)
    lease = await begin(store, tenant, name)
    await store.finish(msgspec.structs.replace(an_end(lease), asked=asked))


async def answering(store: Store, tenant: str, name: str, *ids: str, **more: Any) -> Lease:
    """Accept a response that answers."""
    answers = tuple(Answer(each, f"input[{n}]") for n, each in enumerate(ids))
    return await store.accept(a_response(tenant, name, answers=answers, **more))


async def takers(store: Store, tenant: str, *ids: str) -> list[str | None]:
    """Return who took the answers to requests that there are."""
    found = await store.find_approvals(tenant, list(ids))
    return [found[each].answered_by for each in ids]


def claim(tenant: str, by: str, *ids: str) -> AnswerClaim:
    return AnswerClaim(tenant, by, tuple(Answer(each, f"input[{n}]") for n, each in enumerate(ids)))


class ApprovalContract:
    """A request for consent is answered by one response."""

    async def test_what_was_asked_is_found_by_its_own_tenant(
        self, store: Store, tenant: str
    ) -> None:
        """X1: byte for byte; what is not finished has asked for nothing."""
        await asking(store, tenant, "r1", "a", "b")
        found = await store.find_approvals(tenant, ["a", "b", "c", "nul\0", "a"])
        assert found == {"a": StoredApproval(ODD, None), "b": StoredApproval(ODD, None)}
        assert await store.find_approvals(f"{tenant}-other", ["a"]) == {}
        assert await store.find_approvals(tenant, []) == {}

    async def test_an_answer_is_taken_once(self, store: Store, tenant: str) -> None:
        """T6: the second response leaves no trace, and says which answer it was."""
        await asking(store, tenant, "r1", "a", "b")
        await answering(store, tenant, "r2", "a")
        with pytest.raises(AlreadyAnswered) as caught:
            await answering(store, tenant, "r3", "b", "a")
        assert caught.value.param == "input[1].approval_request_id"
        assert await store.get(tenant, "r3") is None
        assert await takers(store, tenant, "a", "b") == ["r2", None]

    async def test_of_twenty_answers_at_once_one_is_taken(self, store: Store, tenant: str) -> None:
        """T6: whichever requests they answer together, and in whichever order."""
        await asking(store, tenant, "r0", "a", "b")
        orders = (("a", "b"), ("b", "a"))
        async with asyncio.timeout(20):
            results = await asyncio.gather(
                *(answering(store, tenant, f"r{n}", *orders[n % 2]) for n in range(1, 21)),
                return_exceptions=True,
            )
        [won] = [each.response_id for each in results if isinstance(each, Lease)]
        assert sum(isinstance(each, AlreadyAnswered) for each in results) == 19
        assert await takers(store, tenant, "a", "b") == [won, won]

    async def test_an_answer_to_what_was_never_stored_is_taken_once_too(
        self, store: Store, tenant: str
    ) -> None:
        """T6: twenty at once; the note goes with the response that took it."""
        async with asyncio.timeout(20):
            results = await asyncio.gather(
                *(answering(store, tenant, f"r{n}", "x", "y") for n in range(20)),
                return_exceptions=True,
            )
        [won] = [each for each in results if isinstance(each, Lease)]
        assert sum(isinstance(each, AlreadyAnswered) for each in results) == 19
        found = await store.find_approvals(tenant, ["x"])
        assert found == {"x": StoredApproval(None, won.response_id)}
        await store.delete(tenant, won.response_id)
        assert await store.find_approvals(tenant, ["x"]) == {}

    async def test_what_is_abandoned_gives_its_answers_back(
        self, store: Store, tenant: str
    ) -> None:
        """T6: as its Idempotency-Key; a response that is deleted does not."""
        await asking(store, tenant, "r1", "a")
        await store.abandon(await answering(store, tenant, "r2", "a", "x"))
        assert (await store.find_approvals(tenant, ["a", "x"])) == {"a": StoredApproval(ODD, None)}
        lease = await answering(store, tenant, "r3", "a")
        await store.abandon(Lease(tenant, "r3", lease.token + 1))
        await store.finish(an_end(lease))
        await store.delete(tenant, "r3")
        assert await takers(store, tenant, "a") == ["r3"]

    async def test_requests_go_with_the_response_that_asked(
        self, store: Store, tenant: str
    ) -> None:
        """P7: and with nothing else."""
        await asking(store, tenant, "r1", "a")
        await asking(store, tenant, "r2", "b")
        await store.delete(tenant, "r1")
        assert list(await store.find_approvals(tenant, ["a", "b"])) == ["b"]

    async def test_a_repetition_by_key_is_that_of_its_first_request(
        self, store: Store, tenant: str
    ) -> None:
        """T6: it is told of the earlier response, not that its answer was taken."""
        await asking(store, tenant, "r1", "a")
        key = Idempotency("key", b"d")
        await answering(store, tenant, "r2", "a", idempotency=key)
        with pytest.raises(AlreadyAccepted) as caught:
            await answering(store, tenant, "r3", "a", idempotency=key)
        assert caught.value.response_id == "r2"
        other = Idempotency("other", b"d")
        with pytest.raises(AlreadyAnswered):
            await answering(store, tenant, "r4", "a", idempotency=other)
        await store.accept(a_response(tenant, "r5", idempotency=other))

    async def test_a_response_that_is_not_stored_takes_answers_and_gives_them_back(
        self, store: Store, tenant: str
    ) -> None:
        """T6, P5: all or none, again without effect; of what is not stored nothing is noted."""
        await asking(store, tenant, "r1", "a", "b")
        await store.take_answers(claim(tenant, "u1", "a", "x"))
        await store.take_answers(claim(tenant, "u1", "a"))
        with pytest.raises(AlreadyAnswered):
            await store.take_answers(claim(tenant, "u2", "b", "a"))
        with pytest.raises(AlreadyAnswered):
            await answering(store, tenant, "r2", "a")
        assert await takers(store, tenant, "a", "b") == ["u1", None]
        assert await store.find_approvals(tenant, ["x"]) == {}
        await store.free_answers(claim(tenant, "u1", "a"))
        assert await takers(store, tenant, "a") == [None]

    async def test_a_finish_that_is_repeated_asks_once(self, store: Store, tenant: str) -> None:
        """P1: and what was answered meanwhile stays so."""
        lease = await begin(store, tenant, "r1")
        end = msgspec.structs.replace(an_end(lease), asked=(AskedApproval("a", ODD),))
        await store.finish(end)
        await answering(store, tenant, "r2", "a")
        await store.finish(end, again=True)
        assert await takers(store, tenant, "a") == ["r2"]
        await turn(store, tenant, "r3")
