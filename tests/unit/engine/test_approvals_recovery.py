"""Consent in the background, and where workers die between request, answer and call (rules P4, T6)."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from engine.errors import LeaseLost
from engine.ports import EventBatch, FinishedResponse, Lease
from engine.response.effects import Send
from engine.response.inputs import ItemStarted, ModelAnswered
from tests.support.consents import (
    DONE,
    answer,
    asked,
    asks,
    kinds,
    of,
    refused,
    rig_of,
    sent,
    turn,
)
from tests.support.dead_worker import GONE
from tests.support.engine_rig import Rig, final, small
from tests.support.fake_model import FakeModel
from tests.support.fake_tools import FakeProvider, FakeServers, server
from tests.support.faulty_store import FaultyStore
from tests.support.replies import call
from tests.support.stream_rules import check_stream


async def test_in_the_background_both_halves_work() -> None:
    """T6: and a second answer is refused when it is sent, not later."""
    provider = FakeProvider("s", "send")
    rig = rig_of(turn(call("send", "{}")), provider=provider)
    rig.background.start()
    queued = (await rig.create(background=True, tools=[asks()])).json
    first = await rig.becomes(queued["id"], "completed", "failed")
    [request] = of(first, "mcp_approval_request")
    fields = {"tools": [asks()], "input": [answer(request)], "previous_response_id": first["id"]}
    queued = (await rig.create(background=True, **fields)).json
    assert (await refused(rig, background=True, **fields))[0] == 409
    second = await rig.becomes(queued["id"], "completed", "failed")
    await rig.background.stop()
    assert kinds(second) == ["mcp_call", "message"]
    assert provider.calls == [("send", b"{}")]


class Leaving(Rig):
    """A worker that dies in the middle of a run: its log is cut behind so many frames."""

    async def leave(self, frames: int, **fields: Any) -> str:
        written: list[tuple[Lease, EventBatch]] = []
        over = asyncio.Event()
        append = self.store.append

        async def keep(lease: Lease, batch: EventBatch) -> None:
            written.append((lease, batch))

        async def end(finished: FinishedResponse, *, again: bool = False) -> None:
            if finished.events is not None:
                written.append((finished.lease, finished.events))
            over.set()
            raise LeaseLost("dead")

        self.store.append, self.store.finish = keep, end  # type: ignore[method-assign]
        self.background.start()
        queued = (await self.create(background=True, **fields)).json
        async with asyncio.timeout(5):
            await over.wait()
        await self.background.stop()
        await self.settled()
        del self.store.append, self.store.finish
        raw = b"".join(batch.frames for _, batch in written).split(b"\n\n")
        assert len(raw) >= frames + 2, "the log is shorter"
        lease, first = written[0][0], written[0][1].first
        kept = b"".join(frame + b"\n\n" for frame in raw[:frames])
        if kept:
            await append(lease, EventBatch(first, first + frames - 1, kept))
        return str(queued["id"])


async def takes_over(store: FaultyStore, provider: FakeProvider, wanted: str) -> tuple[Rig, Any]:
    """Let another worker bring it to its end."""
    rig = Rig(
        FakeModel(*DONE), store=store, limits=small(lease=0.04), worker="r/1#1",
        providers=FakeServers(provider),
    )  # fmt: skip
    rig.recovery.start()
    rig.background.start()
    response = await rig.becomes(wanted, "completed", "failed", "incomplete")
    await rig.recovery.stop()
    await rig.background.stop()
    await rig.settled()
    return rig, response


@pytest.mark.parametrize(
    ("frames", "statuses", "calls"),
    [
        (0, ["completed"], 1),  # it had not begun
        (3, ["incomplete"], 0),  # what came of it nobody knows
        (7, ["completed"], 0),  # its result is stored
    ],
)
async def test_an_approved_call_survives_its_worker(
    frames: int, statuses: list[str], calls: int
) -> None:
    """P4, T6: wherever the log ends, it is called once at most, and what is stored of it is used."""
    provider = FakeProvider("s", "send")
    servers = FakeServers(provider)
    asking = Rig(FakeModel(*DONE, turns=[turn(call("send", "{}"))]), providers=servers)
    first, request = await asked(asking)
    dead = Leaving(
        FakeModel(*DONE), store=asking.store, limits=small(lease=GONE), worker="r/2#1",
        providers=servers,
    )  # fmt: skip
    fields = {"tools": [asks()], "input": [answer(request)], "previous_response_id": first["id"]}
    wanted = await dead.leave(frames, **fields)
    before = len(provider.calls)
    rig, response = await takes_over(dead.store, provider, wanted)
    assert response["status"] == "completed", response["error"]
    assert [item["status"] for item in of(response, "mcp_call")] == statuses
    assert len(provider.calls) - before == calls
    assert check_stream(await rig.log(wanted), taken_over=True)
    known = [item.get("type") for item in sent(rig, 0)[-2:]]
    assert (known == ["function_call", "function_call_output"]) is (statuses == ["completed"])


@pytest.mark.parametrize("frames", [6, 7])
async def test_a_request_outlives_the_worker_that_asked(frames: int) -> None:
    """P4, T6: where its `done` is logged, and where only its `added` is."""
    provider = FakeProvider("s", "send")
    dead = Leaving(
        FakeModel(turns=[turn(call("send", "{}"))]), limits=small(lease=GONE), worker="r/2#1",
        providers=FakeServers(provider),
    )  # fmt: skip
    wanted = await dead.leave(frames, tools=[asks()])
    rig, response = await takes_over(dead.store, provider, wanted)
    assert kinds(response) == ["mcp_list_tools", "mcp_approval_request"]
    assert rig.model.bodies == []
    fields: dict[str, Any] = {
        "input": [answer(response["output"][1])],
        "previous_response_id": wanted,
    }
    assert kinds(final(await rig.stream(tools=[asks()], **fields)))[0] == "mcp_call"


async def test_a_stream_without_its_own_list_fails_in_order_when_its_worker_dies() -> None:
    """P4, T5, R1: the list is in an earlier response; its log is read back all the same."""
    provider = FakeProvider("s", "look")
    servers = FakeServers(provider)
    asking = Rig(FakeModel(*DONE), providers=servers)
    first = final(await asking.stream(tools=[server("s")]))
    dead = Rig(
        FakeModel(*DONE), store=asking.store, limits=small(lease=GONE), worker="r/2#1",
        providers=servers,
    )  # fmt: skip
    wanted = await leave_a_call(dead, previous_response_id=first["id"])
    rig, response = await takes_over(dead.store, provider, wanted)
    assert response["status"] == "failed"
    assert [item["status"] for item in response["output"]] == ["incomplete"]
    assert final(check_stream(await rig.log(wanted), taken_over=True)) == response


async def test_a_list_is_read_in_its_own_thread_when_a_worker_dies() -> None:
    """P4, T5, M10: another conversation that has a list of that id says nothing about its tools."""
    provider = FakeProvider("s", "look")
    servers = FakeServers(provider)
    asking = Rig(FakeModel(*DONE), providers=servers)
    first = final(await asking.stream(tools=[server("s")]))
    [listed] = of(first, "mcp_list_tools")
    foreign = {**listed, "tools": [{**listed["tools"][0], "name": "other"}]}
    await asking.stream(input=[foreign, {"role": "user", "content": "hi"}])
    dead = Rig(
        FakeModel(*DONE), store=asking.store, limits=small(lease=GONE), worker="r/2#1",
        providers=servers,
    )  # fmt: skip
    wanted = await leave_a_call(dead, previous_response_id=first["id"])
    _, response = await takes_over(dead.store, provider, wanted)
    assert kinds(response) == ["mcp_call"], response["error"]
    assert final(check_stream(await dead.log(wanted), taken_over=True)) == response


async def leave_a_call(rig: Rig, **fields: Any) -> str:
    """Leave a stream in the foreground in the middle of a call."""
    body = json.dumps(
        {"model": "m", "input": "hi", "stream": True, "tools": [server("s")], **fields}
    )
    run = await rig.admit(body.encode())
    assert run.new is not None
    lease = await rig.store.accept(run.new)
    listed = await rig.live.means.tools.list(run.providers)
    frames, last = b"", -1
    for received in (run.first, listed, ModelAnswered(), ItemStarted("function_call", "look")):
        for effect in run.machine.receive(received):
            if isinstance(effect, Send):
                frames, last = frames + effect.frames, effect.last
    await rig.store.append(lease, EventBatch(0, last, frames))
    return run.id
