"""The headers by which a client says what shall happen when it leaves, and that it asks again."""

from __future__ import annotations

import asyncio

import pytest

from tests.support import replies
from tests.support.fix_stack import BOTH_ENVOYS
from tests.support.replies import say, text
from tests.support.scripts import Hold
from tests.support.stack import Stack, eventually
from tests.support.wire import Reading, Wire

pytestmark = BOTH_ENVOYS

ANSWER = replies.stream(text("Hel", "lo"))
LEAVING = {"holdfast-on-disconnect": "cancel"}
RETRIES = 20


async def ended(wire: Wire, response_id: str) -> dict[str, object]:
    """Wait for a response to end and return it."""
    response: dict[str, object] = {}

    async def is_over() -> bool:
        response.update((await wire.get(response_id)).json)
        return response["status"] not in ("queued", "in_progress")

    await eventually(is_over)
    return response


@pytest.mark.parametrize("seen", [1, 3, 5])
async def test_a_client_that_leaves_may_stop_the_model(
    stack: Stack, doors: tuple[Wire, Wire], seen: int
) -> None:
    """P3: the model's call is aborted; what was made is kept as incomplete and can be continued."""
    here, there = doors
    model = stack.plays(ANSWER[:5], Hold(asyncio.Event()))
    async with here.open(headers=LEAVING, model=model) as reading:
        await reading.until_events(seen)
        received = await stack.asks(model)
    await received.wait_aborted()

    response_id = reading.events[0]["response"]["id"]
    response = await ended(there, response_id)

    assert response["status"] == "incomplete"
    assert response["incomplete_details"] == {"reason": "client_disconnected"}
    whole = await there.resume(response_id)
    assert whole.response == response
    assert whole.logged[:seen] == reading.logged[:seen]
    after = stack.plays(say(text("ok")))
    more = await here.create(model=after, stream=False, previous_response_id=response_id)
    assert more.status == 200


@pytest.mark.parametrize("stream", [True, False], ids=["stream", "whole"])
async def test_a_running_response_in_the_foreground_is_cancelled_through_the_other_worker(
    stack: Stack, doors: tuple[Wire, Wire], stream: bool
) -> None:
    """P3, R1: an extension of ours: its client hears of the end, and so does the model."""
    here, there = doors
    model = stack.plays(ANSWER[:5], Hold(asyncio.Event()))
    asking = asyncio.create_task(here.create(model=model, stream=stream))
    received = await stack.asks(model)
    find = "SELECT id FROM responses WHERE model = %s"
    await eventually(lambda: stack.sql(find, model))
    [[response_id]] = await stack.sql(find, model)

    cancelled = await there.ask("POST", f"/v1/responses/{response_id}/cancel")

    await received.wait_aborted()
    assert (cancelled.status, cancelled.json["status"]) == (200, "cancelled")
    seen = await asking
    told = seen.response if stream else seen.json
    assert told == cancelled.json


@pytest.mark.parametrize("stream", [True, False], ids=["stream", "whole"])
async def test_retries_with_one_key_run_once(
    stack: Stack, doors: tuple[Wire, Wire], stream: bool
) -> None:
    """20 at a time, over two workers: one model call, one response, the same answer for all."""
    gate = asyncio.Event()
    model = stack.plays(ANSWER[:5], Hold(gate), ANSWER[5:])
    key = {"idempotency-key": f"key-{model}"}

    async def ask(number: int) -> Reading:
        async with doors[number % 2].open(headers=key, model=model, stream=stream) as reading:
            await reading.rest()
            return reading

    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(ask(number)) for number in range(RETRIES)]
        await stack.asks(model)
        gate.set()
    answers = [task.result() for task in tasks]

    assert {answer.status for answer in answers} == {200}
    told = [answer.response if stream else answer.json for answer in answers]
    assert all(response == told[0] for response in told)
    assert told[0]["output"][0]["content"][0]["text"] == "Hello"
    if stream:
        assert all(answer.logged == answers[0].logged for answer in answers)
    assert len(stack.asked(model)) == 1
    later = await ask(0)
    assert (later.response if stream else later.json) == told[0]
    [[count]] = await stack.sql("SELECT count(*) FROM responses WHERE model = %s", model)
    assert count == 1


async def test_a_key_is_refused_where_it_cannot_be_kept(stack: Stack, wire: Wire) -> None:
    """H1: for another request, and for a response that is not stored."""
    model = stack.plays(say(text("ok")))
    key = {"idempotency-key": f"key-{model}"}

    async def ask(**body: object) -> Reading:
        async with wire.open(headers=key, model=model, **body) as reading:
            await reading.rest()
            return reading

    refused = await ask(store=False)
    assert (refused.status, refused.error["param"]) == (400, "store")
    assert (await ask(stream=False)).status == 200
    other = await ask(stream=False, input="something else")
    assert (other.status, other.error["code"]) == (409, "idempotency_key_reused")


async def test_a_policy_that_there_is_not_is_named(stack: Stack, wire: Wire) -> None:
    """H1."""
    headers = {"holdfast-on-disconnect": "perhaps"}
    async with wire.open(headers=headers, model="demo") as reading:
        await reading.rest()
    assert (reading.status, reading.error["param"]) == (400, "holdfast-on-disconnect")
