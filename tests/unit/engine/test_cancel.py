"""`POST /v1/responses/{id}/cancel`: the end that somebody asks for, whatever the response is doing."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import msgspec
import pytest

from engine.errors import InvalidRequest, NotFound
from tests.support import replies
from tests.support.engine_rig import CALLER, Rig, final, small, turns
from tests.support.fake_model import FakeModel, Hang, Step, frames_of
from tests.support.fake_reply import FakeReply
from tests.support.replies import text
from tests.support.stream_rules import check_stream

HELLO = frames_of(replies.stream(text("Hel", "lo")))
FOR_EVER = asyncio.Event()
SOON = small(cancel_poll=0.01)


async def started(rig: Rig, **fields: Any) -> tuple[FakeReply, asyncio.Task[FakeReply], str]:
    """Start a response and wait until the model is silent; return its id, too."""
    reply = FakeReply()
    running = rig.start(reply, **fields)
    async with asyncio.timeout(5):
        await rig.model.silent.wait()
        await rig.store.reached["accept"].wait()
    await turns()
    return reply, running, (await rig.the_stored()).id


async def cancelled(rig: Rig, wanted: str) -> Any:
    """Cancel and return the object that is shown."""
    async with asyncio.timeout(5):
        return json.loads((await rig.responses.cancel(CALLER, wanted, "")).body)


@pytest.mark.parametrize("elsewhere", [False, True], ids=["here", "elsewhere"])
@pytest.mark.parametrize("where", range(len(HELLO)))
async def test_a_stream_that_is_cancelled_ends_with_what_was_made(
    where: int, elsewhere: bool
) -> None:
    """P3, R1: before the first token and after each; from any worker; the stream ends in order."""
    script: list[Step] = [*HELLO[:where], Hang(FOR_EVER), *HELLO[where:]]
    rig = Rig(FakeModel(*script), limits=SOON)
    other = Rig(FakeModel(), limits=SOON, store=rig.store, worker="replica/1#1")
    reply, running, wanted = await started(rig, stream=True)

    shown = await cancelled(other if elsewhere else rig, wanted)
    await running

    assert shown["status"] == "cancelled"
    assert rig.model.aborted.is_set()
    events = check_stream(reply.raw)
    assert events[-1]["type"] == "response.incomplete"
    assert final(events) == shown == await rig.retrieve(wanted)
    assert await rig.log(wanted) == reply.raw


@pytest.mark.parametrize("where", [0, 5])
async def test_a_client_that_does_not_stream_gets_the_cancelled_object(where: int) -> None:
    """It was not refused: the response is there, with what was made."""
    rig = Rig(FakeModel(*HELLO[:where], Hang(FOR_EVER)), limits=SOON)
    reply, running, wanted = await started(rig)

    shown = await cancelled(rig, wanted)
    await running

    assert reply.json == shown
    assert shown["status"] == "cancelled"


async def test_a_cancelled_response_can_be_continued() -> None:
    """M2: what was said was said."""
    rig = Rig(FakeModel(*HELLO[:6], Hang(FOR_EVER)), limits=SOON)
    _, running, wanted = await started(rig, stream=True, input="one")
    await cancelled(rig, wanted)
    await running
    rig.model.steps = tuple(HELLO)

    await rig.create(input="two", previous_response_id=wanted)

    said = [item["content"] for item in json.loads(rig.model.bodies[-1])["input"]]
    assert said[0] == "one"
    assert said[-1] == "two"


async def test_a_cancel_that_meets_the_end_comes_too_late() -> None:
    """P1: what is being saved is what the client is told; the cancel is then of a finished response."""
    rig = Rig(FakeModel(*HELLO), limits=SOON)
    rig.store.holds["finish"] = gate = asyncio.Event()
    reply = FakeReply()
    running = rig.start(reply, stream=True)
    async with asyncio.timeout(5):
        await rig.store.reached["finish"].wait()
    wanted = (await rig.the_stored()).id
    cancelling = asyncio.ensure_future(cancelled(rig, wanted))
    await turns()
    gate.set()
    await running

    assert (await cancelling)["status"] == "completed"
    assert final(check_stream(reply.raw))["status"] == "completed"


async def test_a_response_whose_client_left_can_be_cancelled() -> None:
    """P3: it does not have to run to its limit."""
    rig = Rig(FakeModel(*HELLO[:6], Hang(FOR_EVER)), limits=SOON)
    _, running, wanted = await started(rig, stream=True)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)

    assert (await cancelled(rig, wanted))["status"] == "cancelled"
    await rig.settled()
    assert rig.detached.runs == 1


async def test_the_first_that_ends_a_response_says_how() -> None:
    """P3: a cancel and its client's leaving cross; the object says what was asked for first."""
    rig = Rig(FakeModel(*HELLO[:6], Hang(FOR_EVER)), limits=SOON)
    caller = msgspec.structs.replace(CALLER, on_disconnect="cancel")
    _, running, wanted = await started(rig, stream=True, caller=caller)
    rig.live.cancel(CALLER.tenant, wanted)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    await rig.settled()

    assert (await rig.the_stored()).status == "cancelled"


async def test_a_response_that_has_ended_cannot_be_cancelled() -> None:
    """As at OpenAI: a 400 that says so."""
    rig = Rig(FakeModel(*HELLO))
    wanted = (await rig.create()).json["id"]

    with pytest.raises(InvalidRequest) as refused:
        await rig.responses.cancel(CALLER, wanted, "")

    assert refused.value.code == "response_not_in_background"


async def test_an_unknown_response_cannot_be_cancelled() -> None:
    """X1: 404."""
    with pytest.raises(NotFound):
        await Rig(FakeModel()).responses.cancel(CALLER, "resp_x", "")


async def test_a_cancel_shows_the_response_as_it_is_where_its_worker_does_not_answer() -> None:
    """The end is asked for; whoever runs it, or takes it over, brings it about."""
    rig = Rig(FakeModel(*HELLO[:6], Hang(FOR_EVER)), limits=small(cancel_poll=60.0))
    other = Rig(FakeModel(), limits=small(cancel_wait=0.0), store=rig.store, worker="replica/1#1")
    _, running, wanted = await started(rig, stream=True)

    assert (await cancelled(other, wanted))["status"] == "in_progress"
    await rig.live.drain(0)
    await running
