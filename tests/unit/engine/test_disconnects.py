"""What a client's leaving does to its response, after every event and with every policy (rule P3)."""

from __future__ import annotations

import asyncio
import gc
import logging
import time

import msgspec
import pytest

from engine.errors import InvalidRequest
from engine.intake import Caller
from engine.loop import Loop
from engine.ports import StoredResponse
from tests.support import replies
from tests.support.engine_rig import CALLER, Rig, final, small, turns
from tests.support.fake_model import FakeModel, Hang, Step, frames_of
from tests.support.fake_reply import FakeReply
from tests.support.replies import call, reasoning, text
from tests.support.stream_rules import check_stream

SCRIPT = frames_of(
    replies.stream(reasoning("think", "ing"), text("Hel", "lo"), call("f", "{", "}"))
)
TOOLS = [{"type": "function", "name": "f"}]
CANCELS = msgspec.structs.replace(CALLER, on_disconnect="cancel")
CONTINUES = msgspec.structs.replace(CALLER, on_disconnect="continue")


def outputs(stored: StoredResponse) -> list[dict[str, str]]:
    """Return the input of a continuation: the outputs that it owes to the calls of a response."""
    items = [msgspec.json.decode(item) for item in stored.output]
    return [
        {"type": "function_call_output", "call_id": item["call_id"], "output": "42"}
        for item in items
        if item["type"] == "function_call" and item["status"] == "completed"
    ] or [{"type": "message", "role": "user", "content": "go on"}]


async def uncut() -> bytes:
    """Return the stream of a client that stays."""
    reply = await Rig(FakeModel(*SCRIPT)).create(stream=True, tools=TOOLS)
    return reply.raw


async def leave_in_silence(rig: Rig, gate: asyncio.Event | None = None, **fields: object) -> bytes:
    """Start a stream and leave when the model pauses; return what was sent until then."""
    reply = FakeReply()
    running = rig.start(reply, stream=True, tools=TOOLS, **fields)
    async with asyncio.timeout(5):
        await rig.model.silent.wait()
    await turns()
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    if gate is not None:
        gate.set()
    return reply.raw


# How many frames of the model the client has seen when it leaves; the model goes on behind the gate.
EVERY = range(len(SCRIPT))


@pytest.mark.parametrize("frames", EVERY)
async def test_a_response_goes_on_without_its_client(frames: int) -> None:
    """P3, P6: whatever it had seen; the log holds the stream that was never cut, byte for byte."""
    gate = asyncio.Event()
    rig = Rig(FakeModel(*SCRIPT[:frames], Hang(gate), *SCRIPT[frames:]))

    seen = await leave_in_silence(rig, gate, caller=CONTINUES)
    await rig.settled()

    stored = await rig.the_stored()
    assert stored.status == "completed"
    assert not rig.model.aborted.is_set()
    log = await rig.log(stored.id)
    assert log == await uncut()
    assert log.startswith(seen)
    assert bool(seen) == bool(frames)
    assert (await rig.create(previous_response_id=stored.id, input=outputs(stored))).whole


@pytest.mark.parametrize("frames", EVERY)
async def test_a_response_that_shall_end_with_its_client_keeps_what_was_made(frames: int) -> None:
    """P3: the model's call is aborted, what it made is stored as incomplete and can be continued."""
    script: list[Step] = [*SCRIPT[:frames], Hang(asyncio.Event()), *SCRIPT[frames:]]
    rig = Rig(FakeModel(*script))

    seen = await leave_in_silence(rig, caller=CANCELS)
    left = time.monotonic()
    async with asyncio.timeout(5):
        await rig.model.aborted.wait()
    assert time.monotonic() - left < 0.1
    await rig.settled()

    stored = await rig.the_stored()
    response = await rig.retrieve(stored.id)
    assert response["status"] == "incomplete"
    assert response["incomplete_details"] == {"reason": "client_disconnected"}
    log = await rig.log(stored.id)
    assert log.startswith(seen)
    assert final(check_stream(log)) == response
    rig.model.steps = tuple(SCRIPT)
    reply = await rig.create(previous_response_id=stored.id, input=outputs(stored))
    assert reply.json["status"] == "completed"
    assert rig.detached.runs == 0


@pytest.mark.parametrize(
    "caller", [CALLER, CONTINUES, CANCELS], ids=["default", "continue", "cancel"]
)
async def test_a_response_that_is_not_stored_always_ends_with_its_client(caller: Caller) -> None:
    """P3, P5: nobody can ever read it, whatever its request says."""
    rig = Rig(FakeModel(*SCRIPT[:6], Hang(asyncio.Event())))
    await leave_in_silence(rig, store=False, caller=caller)
    async with asyncio.timeout(5):
        await rig.model.aborted.wait()
    await rig.settled()
    assert await rig.stored() == []


@pytest.mark.parametrize("policy", ["continue", "cancel"])
async def test_clients_that_do_not_stream_leave_by_the_same_policy(policy: str) -> None:
    """P3: what was made is there for who lists the responses."""
    gate = asyncio.Event()
    rig = Rig(FakeModel(*SCRIPT[:6], Hang(gate), *SCRIPT[6:]))
    caller = msgspec.structs.replace(CALLER, on_disconnect=policy)
    running = rig.start(FakeReply(), caller=caller, tools=TOOLS)
    async with asyncio.timeout(5):
        await rig.model.silent.wait()
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    if policy == "continue":
        gate.set()
    await rig.settled()

    expected = {"continue": "completed", "cancel": "incomplete"}[policy]
    assert (await rig.the_stored()).status == expected
    assert rig.model.aborted.is_set() == (policy == "cancel")


async def test_a_client_that_leaves_while_the_row_is_written_is_one_that_left() -> None:
    """P3: the accepted row and the client's leaving cross."""
    rig = Rig(FakeModel(Hang(asyncio.Event())))
    rig.store.holds["accept"] = gate = asyncio.Event()
    await leave_in_silence(rig, caller=CANCELS)
    gate.set()
    await rig.settled()

    stored = await rig.the_stored()
    assert (stored.status, stored.output) == ("incomplete", [])
    assert final(check_stream(await rig.log(stored.id)))["status"] == "incomplete"


@pytest.mark.parametrize("caller", [CONTINUES, CANCELS], ids=["continue", "cancel"])
async def test_a_client_that_leaves_while_the_end_is_saved_changes_nothing(caller: Caller) -> None:
    """P3: it is over already."""
    rig = Rig(FakeModel(*SCRIPT))
    rig.store.holds["finish"] = gate = asyncio.Event()
    reply = FakeReply()
    running = rig.start(reply, stream=True, caller=caller, tools=TOOLS)
    async with asyncio.timeout(5):
        await rig.store.reached["finish"].wait()
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    gate.set()
    await rig.settled()

    assert (await rig.the_stored()).status == "completed"
    assert rig.detached.runs == 0


async def test_a_response_does_not_run_on_for_ever(caplog: pytest.LogCaptureFixture) -> None:
    """P3: after the detached limit it ends as incomplete; what that cost is counted and logged."""
    rig = Rig(FakeModel(*SCRIPT[:8], Hang(asyncio.Event())), limits=small(detached=0.05))

    with caplog.at_level(logging.INFO, "engine.detached"):
        await leave_in_silence(rig)
        await rig.settled()

    stored = await rig.the_stored()
    response = await rig.retrieve(stored.id)
    assert response["incomplete_details"] == {"reason": "detached_limit"}
    assert final(check_stream(await rig.log(stored.id))) == response
    assert rig.model.aborted.is_set()
    assert rig.detached.runs == 1
    assert 0.04 < rig.detached.seconds < 5
    [line] = [
        record.message for record in caplog.records if "after its client left" in record.message
    ]
    assert stored.id in line


async def test_a_run_that_has_ended_is_forgotten() -> None:
    """X5: also where its limit would have come only minutes later."""
    gate = asyncio.Event()
    rig = Rig(FakeModel(*SCRIPT[:8], Hang(gate), *SCRIPT[8:]))
    tasks = len(asyncio.all_tasks())
    await leave_in_silence(rig, gate)
    await rig.settled()
    await turns()

    gc.collect()
    assert not [found for found in gc.get_objects() if type(found) is Loop]
    assert len(asyncio.all_tasks()) == tasks


async def test_tokens_that_nobody_waited_for_are_counted() -> None:
    """P3: the model's own count, less what its client still saw."""
    gate = asyncio.Event()
    words = frames_of(replies.stream(text(*"abcdefghij")))
    rig = Rig(FakeModel(*words[:5], Hang(gate), *words[5:]))
    await leave_in_silence(rig, gate)
    await rig.settled()

    usage = (await rig.retrieve((await rig.the_stored()).id))["usage"]
    assert 0 < rig.detached.tokens <= usage["output_tokens"]


async def test_a_policy_that_is_none_is_refused() -> None:
    """H1: 400 that names the header; the model is not called."""
    rig = Rig(FakeModel(*SCRIPT))
    caller = msgspec.structs.replace(CALLER, on_disconnect="stop")

    with pytest.raises(InvalidRequest) as refused:
        await rig.responses.create(caller, b'{"model":"m","input":"hi"}', "", FakeReply())

    assert refused.value.param == "holdfast-on-disconnect"
    assert not rig.model.bodies
