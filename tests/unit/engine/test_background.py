"""Responses in the background: queued, run where there is room, shown as they are (rules R2, P3)."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from engine.intake import Caller
from tests.support import replies
from tests.support.engine_rig import CALLER, Rig, final, small
from tests.support.fake_model import FakeModel, Hang, Head, frames_of
from tests.support.fake_reply import FakeReply
from tests.support.fake_tools import FakeProvider, FakeServers, server
from tests.support.replies import text
from tests.support.stream_rules import check_response, check_stream

HELLO = frames_of(replies.stream(text("Hel", "lo")))
KEPT = small(lease=30.0)


def running(*steps: Any) -> Rig:
    """A worker that takes from the queue."""
    rig = Rig(FakeModel(*(steps or HELLO)), limits=KEPT)
    rig.background.start()
    return rig


async def test_where_it_is_not_allowed_it_is_refused() -> None:
    """H1: 400 that names the field; nothing is stored (setting background.allowed)."""
    rig = Rig(FakeModel(*HELLO), background=False)
    refused = await rig.create(background=True)
    assert refused.json["error"]["param"] == "background"
    assert (await rig.create()).json["status"] == "completed"
    assert len(rig.model.bodies) == 1


async def ended(rig: Rig, wanted: str) -> dict[str, Any]:
    """Wait for a response's end."""
    await rig.becomes(wanted, "completed", "incomplete", "failed", "cancelled")
    await rig.background.stop()
    response: dict[str, Any] = await rig.retrieve(wanted)
    return response


async def test_it_is_answered_at_once_and_runs_later() -> None:
    """R2, R10: queued, in_progress, completed; the object is whole at each time."""
    gate = asyncio.Event()
    rig = Rig(FakeModel(*HELLO[:5], Hang(gate), *HELLO[5:]), limits=KEPT)
    queued = (await rig.create(background=True)).json
    assert (queued["status"], queued["background"], queued["output"]) == ("queued", True, [])
    check_response(queued)
    assert await rig.retrieve(queued["id"]) == queued

    rig.background.start()
    await rig.becomes(queued["id"], "in_progress")
    shown = await rig.retrieve(queued["id"])
    check_response(shown)
    assert shown == {**queued, "status": "in_progress"}
    gate.set()

    response = await ended(rig, queued["id"])
    check_response(response)
    assert response["status"] == "completed"
    assert response["output"][0]["content"][0]["text"] == "Hello"


async def test_its_stream_is_the_log() -> None:
    """R2, P6: created, queued, in_progress, and everything else, for whoever asked for it."""
    rig = running()
    events = await rig.stream(background=True)
    kinds = [event["type"] for event in events[:3]]
    assert kinds == ["response.created", "response.queued", "response.in_progress"]
    response = final(events)
    assert response["status"] == "completed"
    assert response == await rig.retrieve(response["id"])
    await rig.background.stop()


async def test_its_client_may_leave() -> None:
    """P3: it was never needed."""
    gate = asyncio.Event()
    rig = running(Hang(gate), *HELLO)
    reply = FakeReply()
    asking = rig.start(reply, background=True, stream=True)
    await reply.until(b"event: response.in_progress")
    asking.cancel()
    gate.set()
    response = await ended(rig, (await rig.the_stored()).id)
    assert response["status"] == "completed"


async def test_a_model_that_refuses_fails_it() -> None:
    """R12: its client was answered long ago, so it is told by the object and its stream."""
    rig = running(Head(400), b'{"error":{"message":"no such model"}}')
    queued = (await rig.create(background=True)).json
    response = await ended(rig, queued["id"])
    assert response["status"] == "failed"
    assert "no such model" in response["error"]["message"]
    rig = running(Head(400), b'{"error":{"message":"no such model"}}')
    assert final(await rig.stream(background=True))["status"] == "failed"
    await rig.background.stop()


async def test_a_list_of_tools_that_a_client_made_up_stops_nothing() -> None:
    """P4: `error` may be an object there; who takes the response reads it again."""
    servers = FakeServers(FakeProvider("s", "look"))
    rig = Rig(FakeModel(*HELLO), limits=KEPT, providers=servers)
    rig.background.start()
    failed = {"code": 401, "message": "Unauthorized"}
    listed = {"type": "mcp_list_tools", "server_label": "s", "tools": [], "error": failed}
    question = {"role": "user", "content": "hi"}
    queued = await rig.create(background=True, tools=[server("s")], input=[question, listed])
    response = await ended(rig, queued.json["id"])
    assert response["status"] == "completed"


async def test_a_bug_that_a_takeover_meets_ends_the_response(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """P4: it is not taken again and again, and is no more in the way of its conversation."""
    servers = FakeServers(FakeProvider("s", "look"))
    rig = Rig(FakeModel(*HELLO), limits=KEPT, providers=servers)
    queued = await rig.create(background=True, tools=[server("s")])
    servers.forget("s")
    rig.background.start()
    response = await ended(rig, queued.json["id"])
    assert response["status"] == "failed"
    assert "cannot be asked for again" in caplog.text
    assert rig.model.bodies == []


async def test_a_worker_runs_so_many_and_no_more() -> None:
    """X5: the others wait, and all come to their turn."""
    gate = asyncio.Event()
    rig = running(Hang(gate), *HELLO)
    ids = [(await rig.create(background=True)).json["id"] for _ in range(7)]
    await rig.until(lambda: len(rig.model.bodies) == 2)
    statuses = sorted([(await rig.retrieve(each))["status"] for each in ids])
    assert statuses == ["in_progress"] * 2 + ["queued"] * 5
    assert rig.background.room == 0
    gate.set()
    for each in ids:
        await rig.becomes(each, "completed")
    await rig.background.stop()
    assert len(rig.model.bodies) == 7


async def test_it_is_cancelled_while_it_waits() -> None:
    """Without ever calling the model; its stream has its end."""
    rig = Rig(FakeModel(*HELLO), limits=KEPT)
    reply = FakeReply()
    asking = rig.start(reply, background=True, stream=True)
    await reply.until(b"event: response.queued")
    wanted = (await rig.the_stored()).id
    answer = await rig.responses.cancel(CALLER, wanted, "")
    assert b'"status":"cancelled"' in answer.body
    await asking
    assert final(check_stream(reply.raw))["status"] == "cancelled"
    assert rig.model.bodies == []


async def test_it_is_cancelled_while_it_runs() -> None:
    """The model's call is aborted; asking again shows it as it is."""
    rig = running(*HELLO[:5], Hang(asyncio.Event()))
    queued = (await rig.create(background=True)).json
    async with asyncio.timeout(5):
        await rig.model.silent.wait()
    for _ in range(2):
        answer = await rig.responses.cancel(CALLER, queued["id"], "")
        assert b'"status":"cancelled"' in answer.body
    async with asyncio.timeout(5):
        await rig.model.aborted.wait()
    await rig.background.stop()


async def test_it_cannot_be_continued_before_it_has_ended() -> None:
    """M2: its output is not there yet."""
    rig = Rig(FakeModel(*HELLO), limits=KEPT)
    queued = (await rig.create(background=True)).json
    refused = await rig.create(previous_response_id=queued["id"])
    assert refused.json["error"]["param"] == "previous_response_id"
    assert refused.json["error"]["code"] == "previous_response_not_finished"


async def test_it_is_refused_where_credentials_would_have_to_be_stored() -> None:
    """X4."""
    rig = Rig(FakeModel(*HELLO), limits=KEPT)
    caller = Caller("default", {"authorization": "Bearer secret"})
    refused = await rig.create(caller=caller, background=True)
    assert (refused.whole is not None and refused.whole.status) == 400
    assert refused.json["error"]["param"] == "background"
    assert await rig.stored() == []


@pytest.mark.parametrize("stream", [True, False])
async def test_a_retry_with_its_key_finds_it(stream: bool) -> None:
    """One response for one Idempotency-Key; the model is called once."""
    rig = running()
    caller = Caller("default", {}, idempotency_key="k")
    replies_ = [await rig.create(caller=caller, background=True, stream=stream) for _ in range(3)]
    [stored] = await rig.stored()
    for reply in replies_:
        if stream:
            assert final(check_stream(reply.raw))["id"] == stored.id
        else:
            assert reply.json["id"] == stored.id
    await ended(rig, stored.id)
    assert len(rig.model.bodies) == 1


@pytest.mark.parametrize("stream", [True, False])
async def test_a_worker_that_stops_hands_it_over(stream: bool) -> None:
    """E4: to another one, which runs it again in the same stream."""
    rig = running(*HELLO[:5], Hang(asyncio.Event()))
    queued = (await rig.create(background=True, stream=False)).json if not stream else None
    reply = FakeReply()
    if stream:
        rig.start(reply, background=True, stream=True)
    async with asyncio.timeout(5):
        await rig.model.silent.wait()
    wanted = queued["id"] if queued is not None else (await rig.the_stored()).id
    await rig.background.stop()
    await rig.live.drain(0)
    assert (await rig.retrieve(wanted))["status"] == "in_progress"
    other = Rig(FakeModel(*HELLO), limits=KEPT, store=rig.store, worker="replica/1#1")
    other.background.start()
    response = await ended(other, wanted)
    assert response["status"] == "completed"
    if stream:
        async with asyncio.timeout(5):
            await reply.until(b"data: [DONE]")
        assert final(check_stream(reply.raw, taken_over=True)) == response
