"""Workers that are told to stop, or die, while requests are under way."""

from __future__ import annotations

import asyncio
import os
import signal

from tests.support import replies
from tests.support.replies import say, text
from tests.support.scripts import Hold
from tests.support.stack import Stack, eventually
from tests.support.wire import Reading, Seen, Wire

ANSWER = replies.stream(text("Hel", "lo"))


async def started_on_both(stack: Stack, model: str) -> None:
    """Wait until both workers run responses, so that whichever is hurt has some."""

    async def both() -> bool:
        return min(await stack.running_by_worker(model)) > 0

    await eventually(both)


async def test_a_worker_that_is_told_to_stop_loses_no_request(
    own_stack: Stack, own_wire: Wire
) -> None:
    """E4: at least 200 requests of 200 KB, streamed and not, from before a SIGTERM to after its end."""
    model = own_stack.plays(say(text("Hel", "lo")))
    old = own_stack.worker(0)
    answers: list[Seen] = []
    replaced = asyncio.Event()

    async def ask() -> None:
        while len(answers) < 200 or not replaced.is_set():
            stream = len(answers) % 2 == 0
            answers.append(await own_wire.create(model=model, input="x" * 200_000, stream=stream))

    async def stop() -> None:
        await eventually(lambda: len(answers) > 20)
        os.kill(old, signal.SIGTERM)
        await own_stack.replaced(0, old)
        replaced.set()

    await asyncio.gather(ask(), ask(), ask(), stop())

    assert {seen.status for seen in answers} == {200}
    for seen in answers:
        if seen.headers["content-type"] != "application/json":
            assert seen.ending["type"] == "response.completed"


async def test_a_running_stream_ends_in_peace_when_its_worker_stops(
    own_stack: Stack, own_wire: Wire
) -> None:
    """E4: what runs has its grace, and its terminal event."""
    gate = asyncio.Event()
    model = own_stack.plays(ANSWER[:5], Hold(gate), ANSWER[5:])
    old = own_stack.worker(1)
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(own_wire.stream(model)) for _ in range(8)]
        await started_on_both(own_stack, model)
        said = len(own_stack.said)
        os.kill(old, signal.SIGTERM)
        await eventually(lambda: any("draining" in line for line in own_stack.said[said:]))
        gate.set()

    assert {task.result().ending["type"] for task in tasks} == {"response.completed"}
    await own_stack.replaced(1, old)


async def test_a_stream_that_outlasts_the_grace_fails_and_is_stored(
    own_stack: Stack, own_wire: Wire
) -> None:
    """R1, E4: a terminal event for the client and the same state in the store; the model is aborted."""
    never = asyncio.Event()
    model = own_stack.plays(ANSWER[:5], Hold(never))
    pids = [own_stack.worker(index) for index in range(2)]
    async with asyncio.TaskGroup() as group:
        streams = [group.create_task(own_wire.stream(model)) for _ in range(4)]
        wholes = [group.create_task(own_wire.create(model=model, stream=False)) for _ in range(4)]
        await own_stack.asks(model, 8)
        await started_on_both(own_stack, model)
        for pid in pids:
            os.kill(pid, signal.SIGTERM)

    for task in streams:
        assert task.result().ending["type"] == "response.failed"
        assert "stopped" in task.result().response["error"]["message"]
    assert {task.result().status for task in wholes} == {503}
    for index, pid in enumerate(pids):
        await own_stack.replaced(index, pid)
    stored = await own_stack.sql(
        "SELECT status, count(*) FROM responses WHERE model = %s GROUP BY 1", model
    )
    assert stored == [("failed", 8)]
    for received in own_stack.asked(model):
        await received.wait_aborted()


async def test_a_killed_worker_is_replaced_and_the_other_goes_on(
    own_stack: Stack, own_wire: Wire
) -> None:
    """E5: SIGKILL costs only the streams that it ran; every other request is answered."""
    gate = asyncio.Event()
    held = own_stack.plays(ANSWER[:5], Hold(gate), ANSWER[5:])
    model = own_stack.plays(say(text("ok")))

    reached = 0

    async def hold() -> Reading:
        nonlocal reached
        async with own_wire.open(model=held) as reading:
            await reading.until("response.output_text.delta")
            reached += 1
            await reading.rest(30)
            return reading

    old = own_stack.worker(0)
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(hold()) for _ in range(8)]
        await eventually(lambda: reached == 8)
        await started_on_both(own_stack, held)
        on_first = (await own_stack.running_by_worker(held))[0]
        os.kill(old, signal.SIGKILL)
        answers = [await own_wire.create(model=model, stream=False) for _ in range(40)]
        await own_stack.replaced(0, old)
        gate.set()

    # Envoy has two threads, and each may have sent one request before it saw the connection close.
    refused = [seen for seen in answers if seen.status != 200]
    assert len(refused) <= 2
    assert {seen.error["code"] for seen in refused} <= {"sidecar_unavailable"}
    streams = [task.result() for task in tasks]
    assert [stream.clean for stream in streams].count(False) == on_first
    for stream in streams:
        if stream.clean:
            assert stream.ending["type"] == "response.completed"


async def test_without_any_worker_requests_are_refused_and_later_taken_again(
    own_stack: Stack, own_wire: Wire
) -> None:
    """E5: 503 JSON with Retry-After, no hanging, and all is well once a worker is back."""
    model = own_stack.plays(say(text("ok")))
    pids = [own_stack.worker(index) for index in range(2)]
    for pid in pids:
        os.kill(pid, signal.SIGKILL)

    refused = await own_wire.create(model=model, stream=False)

    assert refused.status == 503
    assert refused.error["code"] == "sidecar_unavailable"
    assert refused.headers["retry-after"] == "1"
    for index, pid in enumerate(pids):
        await own_stack.replaced(index, pid)
    assert (await own_wire.create(model=model, stream=False)).status == 200


async def test_a_frozen_worker_takes_no_new_requests(own_stack: Stack, own_wire: Wire) -> None:
    """E5: SIGSTOP; Envoy's health check finds it out, and the other worker answers."""
    model = own_stack.plays(say(text("ok")))
    pid = own_stack.worker(0)
    os.kill(pid, signal.SIGSTOP)
    try:

        async def one_left() -> bool:
            return await own_stack.stat("cluster.sidecar.membership_healthy") == 1

        await eventually(one_left)
        answers = [await own_wire.create(model=model, stream=False) for _ in range(20)]
        assert [seen.status for seen in answers] == [200] * 20
    finally:
        os.kill(pid, signal.SIGCONT)
    await own_stack.all_workers_take_requests()
