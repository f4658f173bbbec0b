"""`engine.affinity`: what the turns of one conversation have in common, and nobody else's."""

from __future__ import annotations

import json
from typing import Any

import pytest

from engine.affinity import HEADER, affinity, root_of
from engine.intake import Caller
from tests.support import replies
from tests.support.engine_rig import CALLER, Rig
from tests.support.fake_model import FakeModel, frames_of
from tests.support.replies import text

HELLO = frames_of(replies.stream(text("Hel", "lo")))
FIRST = b'{"type":"message","role":"user","content":"Hello."}'
DEVELOPER = b'{"type":"message","role":"developer","content":"Be brief."}'
ANSWER = b'{"type":"message","role":"assistant","content":"Hi."}'


def sent(model: FakeModel) -> list[str]:
    """Return the affinity of each call of the model."""
    return [headers[HEADER] for headers in model.headers]


async def converse(rig: Rig, turns: int, *, caller: Caller = CALLER, **fields: Any) -> None:
    """Hold a conversation by `previous_response_id`."""
    previous = None
    for number in range(turns):
        input_ = f"{fields.get('user', 'turn')} {number}"
        given = {**fields, "input": input_, "previous_response_id": previous}
        previous = (await rig.create(caller=caller, **given)).json["id"]


async def test_the_turns_of_a_conversation_carry_one_value() -> None:
    """Promise 5: from the first turn on."""
    rig = Rig(FakeModel(*HELLO))

    await converse(rig, 3)

    assert len(set(sent(rig.model))) == 1


async def test_branches_carry_the_value_of_their_root() -> None:
    """M10: they share a prefix, and so a cache; also one that is not stored."""
    rig = Rig(FakeModel(*HELLO))
    root = (await rig.create()).json["id"]

    for way in ("left", "right"):
        await rig.create(previous_response_id=root, input=way)
    await rig.create(previous_response_id=root, input="unstored", store=False)

    assert len(set(sent(rig.model))) == 1


async def test_the_value_outlives_the_beginning_of_the_conversation() -> None:
    """P7: the first response is deleted, its descendants stay where they are."""
    rig = Rig(FakeModel(*HELLO))
    first = (await rig.create(input="once")).json["id"]
    second = (await rig.create(input="twice", previous_response_id=first)).json["id"]
    await rig.store.delete(CALLER.tenant, first)

    await rig.create(input="thrice", previous_response_id=second)

    assert len(set(sent(rig.model))) == 1


@pytest.mark.parametrize("store", [True, False], ids=["stored", "not-stored"])
async def test_a_client_that_keeps_the_history_stays_where_it_began(store: bool) -> None:
    """Promise 5: it sends everything each time, which begins a thread each time."""
    rig = Rig(FakeModel(*HELLO))
    history = [json.loads(item) for item in (DEVELOPER, FIRST)]
    await rig.create(input=history, store=store)

    await rig.create(
        input=[*history, json.loads(ANSWER), {"role": "user", "content": "And?"}], store=store
    )
    await rig.create(input=[*history[:1], {"role": "user", "content": "Other."}], store=store)

    first, second, other = sent(rig.model)
    assert first == second != other


async def test_a_prompt_cache_key_counts_where_a_conversation_begins() -> None:
    """Promise 5: the client says what belongs together; a conversation that was begun goes on."""
    rig = Rig(FakeModel(*HELLO))
    first = (await rig.create(input="a", prompt_cache_key="k")).json["id"]
    await rig.create(input="b", prompt_cache_key="k", store=False)
    await rig.create(input="b", prompt_cache_key="other")
    await rig.create(input="c", prompt_cache_key="other", previous_response_id=first)

    a, b, other, c = sent(rig.model)
    assert a == b == c != other


async def test_no_two_tenants_have_one_value() -> None:
    """X1: what one says in its requests does not tell of another's."""
    rig = Rig(FakeModel(*HELLO))

    for tenant in ("one", "two"):
        await rig.create(caller=Caller(tenant), prompt_cache_key="k")

    assert len(set(sent(rig.model))) == 2


async def test_a_client_cannot_say_the_value_itself() -> None:
    """X6: whatever came in under the header's name is replaced."""
    rig = Rig(FakeModel(*HELLO))

    await rig.create(caller=Caller("default", {HEADER: "mine"}))

    assert sent(rig.model) != ["mine"]


def test_the_value_is_opaque() -> None:
    """X4: digits, and nothing of what they were made of; without surprises in what a client may send."""
    value = affinity("tenant", root_of("secret \ud800", [FIRST]))

    assert len(value) == 32
    assert int(value, 16)


def test_what_follows_the_first_message_of_the_user_does_not_count() -> None:
    """Promise 5: and what stands before it does."""
    assert root_of(None, [FIRST]) == root_of("", [FIRST, ANSWER])
    assert root_of(None, [DEVELOPER, FIRST]) != root_of(None, [FIRST])
    assert root_of(None, [ANSWER + b"," + ANSWER, FIRST]) != root_of(None, [FIRST])
    assert root_of(None, []) == root_of(None, iter(()))
