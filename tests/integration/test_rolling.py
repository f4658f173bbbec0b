"""Workers that are restarted one after the other, under load: nothing is lost (rule E4)."""

from __future__ import annotations

import asyncio
import os
import signal
from functools import partial

from tests.support import replies
from tests.support.replies import say, text
from tests.support.scripts import Hold
from tests.support.stack import Stack, eventually
from tests.support.stream_rules import check_stream, response_of
from tests.support.wire import Seen, Wire

ANSWER = replies.stream(text("Hel", "lo"))
PATIENCE = 60.0


async def restart(stack: Stack, index: int) -> None:
    """Stop a worker as a rollout does, and wait until its successor takes requests."""
    old = stack.worker(index)
    os.kill(old, signal.SIGTERM)
    await stack.replaced(index, old)


async def statuses(stack: Stack, model: str) -> dict[str, int]:
    """Return how many responses with a model have each status."""
    return dict(
        await stack.sql("SELECT status, count(*) FROM responses WHERE model = %s GROUP BY 1", model)
    )


async def all_completed(stack: Stack, model: str) -> bool:
    return set(await statuses(stack, model)) == {"completed"}


async def test_a_rolling_restart_loses_no_request_and_no_response(
    rugged: Stack, rugged_wire: Wire
) -> None:
    """E4: streams, whole answers, background responses, from before the first restart to after the last."""
    model = rugged.plays(say(text("Hel", "lo")))
    answers: list[Seen] = []
    over = asyncio.Event()

    async def ask(**body: object) -> None:
        while not over.is_set():
            answers.append(await rugged_wire.create(model=model, timeout=PATIENCE, **body))

    async def roll() -> None:
        await eventually(lambda: len(answers) > 20, PATIENCE)
        for index in (0, 1):
            await restart(rugged, index)
        over.set()

    await asyncio.gather(
        ask(stream=True),
        ask(stream=False),
        ask(stream=True, background=True),
        ask(stream=False, background=True),
        roll(),
    )

    assert {seen.status for seen in answers} == {200}
    for seen in answers:
        if seen.headers["content-type"] != "application/json":
            assert seen.clean
            events = check_stream(bytes(seen.raw), taken_over=True)
            assert response_of(events)["status"] == "completed"
    await eventually(partial(all_completed, rugged, model), PATIENCE)
    assert (await statuses(rugged, model))["completed"] == len(answers)


async def test_what_has_no_client_is_handed_over(rugged: Stack, rugged_wire: Wire) -> None:
    """E4, P3: what runs longer than the grace, in the background or detached, goes to the other worker."""
    gate = asyncio.Event()
    model = rugged.plays(ANSWER[:5], Hold(gate), ANSWER[5:])
    ids = []
    for background in (True, False, True):
        async with rugged_wire.open(model=model, background=background) as reading:
            await reading.until("response.output_text.delta", timeout=PATIENCE)
            ids.append(reading.events[0]["response"]["id"])
    queued = await rugged_wire.create(model=model, background=True, stream=False)
    ids.append(queued.json["id"])
    await rugged.asks(model, 4)

    for index in (0, 1):
        await restart(rugged, index)
    # Whatever ran anywhere was handed over at least once by now, and is held again.
    assert set(await statuses(rugged, model)) <= {"queued", "in_progress"}
    gate.set()

    await eventually(partial(all_completed, rugged, model), PATIENCE)
    for response_id in ids:
        response = (await rugged_wire.get(response_id)).json
        assert response["output"][-1]["content"][0]["text"] == "Hello"
    for response_id in ids[:3]:
        read = await rugged_wire.resume(response_id)
        assert response_of(check_stream(bytes(read.raw), taken_over=True))["status"] == "completed"


async def test_who_follows_a_worker_that_stops_goes_on_at_the_next(
    rugged: Stack, rugged_wire: Wire
) -> None:
    """E4, P6: the stream ends with an error event, behind whose number the rest is found."""
    gate = asyncio.Event()
    model = rugged.plays(ANSWER[:5], Hold(gate), ANSWER[5:])
    async with rugged_wire.open(model=model, background=True) as reading:
        await reading.until("response.output_text.delta", timeout=PATIENCE)
        for index in (0, 1):
            await restart(rugged, index)
        await reading.rest(PATIENCE)
    assert reading.clean
    error = reading.events[-1]
    assert (error["type"], error["code"]) == ("error", "server_error")
    kept = reading.logged[:-1]
    gate.set()
    rest = await rugged_wire.resume(
        reading.events[0]["response"]["id"], error["sequence_number"], timeout=PATIENCE
    )
    frames = [*kept, *rest.logged, b"data: [DONE]"]
    raw = b"".join(frame + b"\n\n" for frame in frames)
    assert response_of(check_stream(raw, taken_over=True))["status"] == "completed"
