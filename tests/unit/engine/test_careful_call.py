"""Structured output that does not fit: the model is asked once more, where nobody has seen the answer."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from engine.upstream.care import Care
from engine.upstream.choice import Choice
from tests.support import replies
from tests.support.engine_rig import CALLER, Rig, final, small, turns
from tests.support.fake_model import JSON, Break, FakeModel, Hang, Head, Step, frames_of
from tests.support.fake_reply import FakeReply
from tests.support.replies import text
from tests.support.scripts import CHAT

SCHEMA = {"type": "object", "required": ["n"]}
ASKED: dict[str, Any] = {"text": {"format": {"type": "json_schema", "name": "t", "schema": SCHEMA}}}
AGAIN = Choice("chat", care=Care(check_output=True, ask_again=True))


def turn(said: str) -> list[Step]:
    return list(frames_of(replies.stream(text(said), input_tokens=7), path=CHAT))


GOOD, BAD, PROSE = turn('{"n": 1}'), turn('{"m": 1}'), turn("Sure! Here it is")


def rig_of(*turns: list[Step], **limits: Any) -> Rig:
    return Rig(FakeModel(turns=turns), choice=AGAIN, limits=small(**limits))


async def test_a_good_answer_is_asked_for_once() -> None:
    """The rule of the house: nobody pays for care that was not needed."""
    rig = rig_of(GOOD)
    assert (await rig.create(**ASKED)).json["output"][0]["content"][0]["text"] == '{"n": 1}'
    assert len(rig.model.bodies) == 1


@pytest.mark.parametrize("background", [True, False])
async def test_a_bad_answer_is_asked_for_again(background: bool) -> None:
    """R10: the first answer is gone but for its usage; the second request is the first, byte by byte."""
    rig = rig_of(PROSE, GOOD)
    reply = await rig.create(background=background, **ASKED)
    rig.background.start()
    response = await rig.becomes(reply.json["id"], "completed")
    await rig.background.stop()
    assert [item["content"][0]["text"] for item in response["output"]] == ['{"n": 1}']
    assert response["usage"]["input_tokens"] == 14
    assert rig.model.bodies[0] == rig.model.bodies[1]


async def test_two_bad_answers_fail_the_response() -> None:
    """Not a third time; the second one is kept."""
    rig = rig_of(PROSE, BAD)
    reply = await rig.create(**ASKED)
    assert reply.whole is not None
    assert reply.whole.status == 502
    assert "'n' is a required property" in reply.json["error"]["message"]
    response = await rig.retrieve((await rig.the_stored()).id)
    assert response["output"][0]["content"][0]["text"] == '{"m": 1}'


@pytest.mark.parametrize(
    "second",
    [[Head(503, JSON)], [*GOOD[:2], Break()], GOOD[:2]],
    ids=["refused", "broken", "without an end"],
)
async def test_where_the_second_cannot_be_read_the_first_stays(second: list[Step]) -> None:
    """R15: the client hears what was wrong with the answer that there is."""
    rig = rig_of(BAD, second)
    reply = await rig.create(**ASKED)
    assert "'n' is a required property" in reply.json["error"]["message"]
    response = await rig.retrieve((await rig.the_stored()).id)
    assert response["output"][0]["content"][0]["text"] == '{"m": 1}'


async def test_what_a_client_has_seen_is_not_taken_back() -> None:
    """R4, R6: a stream fails at once."""
    rig = rig_of(BAD, GOOD)
    response = final(await rig.stream(**ASKED))
    assert (response["status"], len(rig.model.bodies)) == ("failed", 1)


async def test_a_cancel_keeps_what_was_made() -> None:
    """P3: also what waited for its judgement."""
    rig = rig_of([*GOOD[:2], Hang(asyncio.Event())])
    running = rig.start(FakeReply(), **ASKED)
    async with asyncio.timeout(5):
        await rig.model.silent.wait()
        await rig.store.reached["accept"].wait()
    await turns()
    stored = await rig.the_stored()
    shown = json.loads((await rig.responses.cancel(CALLER, stored.id, "")).body)
    await running
    assert (shown["status"], shown["output"][0]["status"]) == ("cancelled", "incomplete")
    assert shown["output"][0]["content"][0]["text"] == '{"n": 1}'
    assert rig.model.aborted.is_set()


async def test_what_waits_is_bounded() -> None:
    """X5."""
    rig = rig_of(turn("x" * 5000), response_bytes=1000)
    reply = await rig.create(**ASKED)
    assert "over 1000 bytes" in reply.json["error"]["message"]
    assert len(rig.model.bodies) == 1
