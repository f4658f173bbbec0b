"""Reasoning that the client keeps for us: `include: reasoning.encrypted_content` (rules M4, X4)."""

from __future__ import annotations

import json
from typing import Any

import pytest

from engine.intake import Caller
from engine.response.inputs import ItemEnded, ItemStarted, ReasoningDelta, TextDelta
from extproc.sealing import AesSealing, NoSealing
from tests.support.dead_worker import GONE, leave
from tests.support.engine_rig import CALLER, Rig, final, small
from tests.support.fake_model import FakeModel, frames_of
from tests.support.faulty_store import FaultyStore
from tests.support.replies import reasoning, stream, text

INCLUDE = ["reasoning.encrypted_content"]
THOUGHT = frames_of(stream(reasoning("Let me", " think"), text("42")))


def rig(**parts: Any) -> Rig:
    return Rig(FakeModel(*THOUGHT), **parts)


def thought(response: dict[str, Any]) -> dict[str, Any]:
    """Return the one reasoning item of a response."""
    [item] = [item for item in response["output"] if item["type"] == "reasoning"]
    found: dict[str, Any] = item
    return found


def sent(at: Rig, turn: int) -> list[dict[str, Any]]:
    """Return the input that the model was sent."""
    read: list[dict[str, Any]] = json.loads(at.model.bodies[turn])["input"]
    return read


@pytest.mark.parametrize("stream", [True, False])
async def test_sealed_reasoning_comes_back_as_what_the_model_thought(stream: bool) -> None:
    """M4: also from a client that keeps nothing but the sealed text, without ids, and stores nothing here."""
    at = rig()
    fields: dict[str, Any] = {"include": INCLUDE, "store": False}
    first = final(await at.stream(**fields)) if stream else (await at.create(**fields)).json
    item = thought(first)
    assert "think" not in item["encrypted_content"]
    kept = {"type": "reasoning", "summary": [], "encrypted_content": item["encrypted_content"]}
    for again in (kept, {**kept, "content": None, "id": None}, item):
        question = {"role": "user", "content": "why?"}
        answer = {"role": "assistant", "content": "42"}
        await at.create(input=[question, again, answer, question], **fields)
        replayed = sent(at, -1)[1]
        assert replayed["content"] == [{"type": "reasoning_text", "text": "Let me think"}]
        assert "encrypted_content" not in replayed


async def test_nothing_is_sealed_unless_it_is_asked_for() -> None:
    """R10: the item has no key that nobody wants."""
    at = rig(sealing=NoSealing())
    assert "encrypted_content" not in thought((await at.create()).json)


async def test_what_is_stored_is_shown_and_continued() -> None:
    """M2: the next turn is sent the thought from the store, however it is named."""
    at = rig()
    first = (await at.create(include=INCLUDE)).json
    assert await at.retrieve(first["id"]) == first
    await at.create(input="go on", previous_response_id=first["id"])
    assert sent(at, 1)[1]["content"][0]["text"] == "Let me think"


@pytest.mark.parametrize(
    "forge",
    [
        lambda sealed: "gAAAAABm",
        lambda sealed: sealed[:-2],
        lambda sealed: sealed[:-10] + "A" * 10,
        lambda _: AesSealing([b"k" * 32]).seal(CALLER.tenant, "reasoning", b"x"),
        lambda _: AesSealing([bytes(32)]).seal("other", "reasoning", b"x"),
        lambda _: AesSealing([bytes(32)]).seal(CALLER.tenant, "compaction", b"x"),
    ],
    ids=["no seal", "cut", "changed", "other key", "other tenant", "other purpose"],
)
async def test_what_was_not_sealed_for_this_is_refused(forge: Any) -> None:
    """X4: 400 at its place, whatever is wrong with it; the model is not called."""
    at = rig()
    sealed = thought((await at.create(include=INCLUDE)).json)["encrypted_content"]
    item = {"type": "reasoning", "summary": [], "encrypted_content": forge(sealed)}
    reply = await at.create(input=[item, {"role": "user", "content": "hi"}])
    assert reply.whole is not None
    assert reply.whole.status == 400
    error = reply.json["error"]
    assert (error["param"], error["code"]) == (
        "input[0].encrypted_content",
        "invalid_encrypted_content",
    )
    assert len(at.model.bodies) == 1


async def test_another_tenant_cannot_use_it() -> None:
    """X1."""
    at = rig()
    item = thought((await at.create(include=INCLUDE)).json)
    asked = [item, {"role": "user", "content": "hi"}]
    reply = await at.create(caller=Caller("thief"), input=asked)
    assert reply.json["error"]["code"] == "invalid_encrypted_content"


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"include": INCLUDE}, "include"),
        (
            {"input": [{"type": "reasoning", "encrypted_content": "hf1.x"}]},
            "input[0].encrypted_content",
        ),
    ],
)
async def test_without_a_key_the_operator_is_told_what_to_set(fields: Any, param: str) -> None:
    """H1: not ignored."""
    at = rig(sealing=NoSealing())
    reply = await at.create(**fields)
    error = reply.json["error"]
    assert (error["param"], error["code"]) == (param, "sealing_not_configured")
    assert "HOLDFAST_SEALING__KEYS" in error["message"]


async def test_a_worker_that_takes_over_shows_the_seal_that_was_sent() -> None:
    """P4, R3: the log has it; sealed anew it would be another text."""
    store = FaultyStore()
    gone = Rig(FakeModel(), store=store, limits=small(lease=GONE), worker="replica/1#1")
    sealed = gone.sealing.seal(CALLER.tenant, "reasoning", b"Hm")
    lease = await leave(
        gone,
        ItemStarted("reasoning"),
        ReasoningDelta("Hm"),
        ItemEnded("completed", sealed),
        ItemStarted("message"),
        TextDelta("Hal"),
        background=True,
        stream=True,
        include=INCLUDE,
    )
    at = Rig(FakeModel(*THOUGHT), store=store, limits=small(lease=0.04))
    at.recovery.start()
    at.background.start()
    await at.becomes(lease.response_id, "completed")
    await at.recovery.stop()
    await at.background.stop()
    await at.settled()
    first, _, second, _ = (await at.retrieve(lease.response_id))["output"]
    assert first["encrypted_content"] == sealed
    text_of = at.sealing.unseal(CALLER.tenant, "reasoning", second["encrypted_content"])
    assert text_of == b"Let me think"
