"""`Idempotency-Key`: a retry gets what its first request made, and the model is called once."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import msgspec
import pytest

from engine.intake import Caller
from tests.support import replies
from tests.support.engine_rig import CALLER, Rig, final, small, turns
from tests.support.fake_model import Break, FakeModel, Hang, Head, frames_of
from tests.support.fake_reply import FakeReply
from tests.support.replies import call, text
from tests.support.stream_rules import check_stream

HELLO = frames_of(replies.stream(text("Hel", "lo")))
FOR_EVER = asyncio.Event()


def keyed(key: str = "key-1") -> Caller:
    return msgspec.structs.replace(CALLER, idempotency_key=key)


async def together(rig: Rig, gate: asyncio.Event, times: int, **fields: Any) -> list[FakeReply]:
    """Send a request so often at once; the model answers when all were sent."""
    sent = [rig.start(FakeReply(), caller=keyed(), **fields) for _ in range(times)]
    async with asyncio.timeout(5):
        await rig.model.silent.wait()
    await turns()
    gate.set()
    return await asyncio.gather(*sent)


@pytest.mark.parametrize("stream", [True, False])
async def test_twenty_retries_are_one_response(stream: bool) -> None:
    """One model call, one row, and each of the twenty gets the whole response."""
    gate = asyncio.Event()
    rig = Rig(FakeModel(*HELLO[:5], Hang(gate), *HELLO[5:]), limits=small(log_interval=0.01))

    got = await together(rig, gate, 20, stream=stream)

    assert len(rig.model.bodies) == 1
    stored = await rig.the_stored()
    if stream:
        assert {reply.raw for reply in got} == {await rig.log(stored.id)}
        check_stream(got[0].raw)
    else:
        assert all(reply.json == got[0].json for reply in got)
        assert got[0].json["id"] == stored.id


@pytest.mark.parametrize("stream", [True, False])
async def test_a_retry_after_the_end_gets_the_same_again(stream: bool) -> None:
    """P6: from the log, or from the stored object."""
    rig = Rig(FakeModel(*HELLO))
    first = await rig.create(caller=keyed(), stream=stream)

    again = await rig.create(caller=keyed(), stream=stream)

    assert len(rig.model.bodies) == 1
    assert again.raw == first.raw
    if not stream:
        assert again.json == first.json


async def test_a_retry_whose_first_client_left_gets_the_response() -> None:
    """P3: that is what the key is for."""
    gate = asyncio.Event()
    rig = Rig(FakeModel(*HELLO[:5], Hang(gate), *HELLO[5:]))
    running = rig.start(FakeReply(), caller=keyed(), stream=True)
    async with asyncio.timeout(5):
        await rig.model.silent.wait()
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    retry = rig.start(FakeReply(), caller=keyed(), stream=True)
    await turns()
    gate.set()

    events = check_stream((await retry).raw)

    assert final(events) == await rig.retrieve((await rig.the_stored()).id)
    assert len(rig.model.bodies) == 1


async def test_another_request_with_the_same_key_is_a_conflict() -> None:
    """H1: 409; the model is not called for it."""
    rig = Rig(FakeModel(*HELLO))
    await rig.create(caller=keyed(), input="one")

    reply = await rig.create(caller=keyed(), input="two")

    assert reply.whole is not None
    assert reply.whole.status == 409
    assert reply.json["error"]["code"] == "idempotency_key_reused"
    assert len(rig.model.bodies) == 1


async def test_other_keys_and_no_keys_are_other_responses() -> None:
    """Only what was sent twice is made once."""
    rig = Rig(FakeModel(*HELLO))
    for caller in (keyed("a"), keyed("b"), CALLER, CALLER):
        await rig.create(caller=caller)
    assert len(await rig.stored()) == 4


@pytest.mark.parametrize("stream", [True, False])
async def test_a_refused_request_leaves_its_key_free(stream: bool) -> None:
    """R16: nothing was made, so a retry may try again."""
    rig = Rig(FakeModel(Head(429), b"{}"))
    refused = await rig.create(caller=keyed(), stream=stream)
    rig.model.steps = tuple(HELLO)

    assert refused.whole is not None
    assert refused.whole.status == 429
    await rig.create(caller=keyed(), stream=stream)
    assert (await rig.the_stored()).status == "completed"


async def test_who_waited_for_a_request_that_was_refused_is_told_to_send_again() -> None:
    """409: clients try again by themselves, and the key is free."""
    gate = asyncio.Event()
    rig = Rig(FakeModel(Hang(gate), Head(400), b"{}"))

    statuses = [
        reply.whole.status for reply in await together(rig, gate, 3) if reply.whole is not None
    ]

    assert sorted(statuses) == [400, 409, 409]
    assert len(rig.model.bodies) == 1


async def test_a_retry_of_a_failed_response_fails_too() -> None:
    """R15: without a stream the failure is a status, the second time as well."""
    rig = Rig(FakeModel(*HELLO[:6], Break()))
    first = await rig.create(caller=keyed())

    again = await rig.create(caller=keyed())

    assert first.whole is not None
    assert again.whole is not None
    assert (first.whole.status, again.whole.status) == (502, 500)
    assert again.json["error"]["message"] == first.json["error"]["message"]
    assert len(rig.model.bodies) == 1


async def test_a_key_needs_a_stored_response() -> None:
    """H1: 400 with `param`."""
    reply = await Rig(FakeModel(*HELLO)).create(caller=keyed(), store=False)
    assert reply.whole is not None
    assert (reply.whole.status, reply.json["error"]["param"]) == (400, "store")


async def test_a_retry_that_waited_in_line_behind_its_first_is_served_that() -> None:
    """M6, M7: what it brings was taken meanwhile, and is not held against it."""
    rig = Rig(FakeModel(*HELLO, turns=[frames_of(replies.stream(call("f", "{}")))]))
    made = await rig.conversations.create(CALLER, b"", "")
    name = json.loads(made.body)["id"]
    asking: dict[str, Any] = {"conversation": name, "tools": [{"type": "function", "name": "f"}]}
    first = (await rig.create(**asking)).json
    output = {"type": "function_call_output", "call_id": first["output"][0]["call_id"]}
    with rig.lines.visit() as busy:
        await busy.context(CALLER.tenant, name)
        given = {**asking, "input": [{**output, "output": "7"}], "caller": keyed()}
        sent = [rig.start(FakeReply(), **given) for _ in range(3)]
        await turns()
    async with asyncio.timeout(5):
        got = [reply.json for reply in await asyncio.gather(*sent)]
    assert got[0]["status"] == "completed"
    assert got == [got[0]] * 3
    assert len(rig.model.bodies) == 2
