"""Workers that are killed: what they ran comes to its end elsewhere, soon and once (rule P4)."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from storage.postgres.embedded import EmbeddedPostgres
from tests.support import replies
from tests.support.fix_postgres import create_database
from tests.support.fix_stack import open_session
from tests.support.replies import text
from tests.support.scripted_model import ScriptedModel
from tests.support.scripts import Hold
from tests.support.stack import Stack, eventually, running_stack
from tests.support.stream_rules import Event, check_stream, response_of
from tests.support.wire import Wire

ANSWER = replies.stream(text("Hel", "lo"))
BEGUN = ANSWER[:5]
PATIENCE = 60.0
NEVER = 3600.0


async def runs_it(stack: Stack, model: str) -> int:
    """Wait until one worker runs the one response with that model; return its number."""
    found: list[int] = []

    async def one() -> bool:
        found[:] = await stack.running_by_worker(model)
        return sum(found) == 1

    await eventually(one, PATIENCE)
    return found.index(1)


async def ended(wire: Wire, response_id: str) -> Event:
    """Wait for a response's end, asking whichever worker there is."""
    seen: list[Event] = []

    async def over() -> bool:
        answer = await wire.get(response_id)
        if answer.status != 200 or not answer.clean:
            return False
        seen[:] = [answer.json]
        return seen[0]["status"] not in ("queued", "in_progress")

    await eventually(over, PATIENCE)
    return seen[0]


async def kill(stack: Stack, index: int) -> int:
    """Kill a worker as a crash does; return the pid that it had."""
    pid = stack.worker(index)
    os.kill(pid, signal.SIGKILL)
    return pid


@pytest.mark.parametrize("stream", [True, False], ids=["stream", "whole"])
async def test_a_response_in_the_foreground_fails_and_says_why(
    rugged: Stack, rugged_wire: Wire, stream: bool
) -> None:
    """P4, R1: also where its client had left; its stream can be read to its end."""
    model = rugged.plays(BEGUN, Hold(asyncio.Event()))
    asking = asyncio.create_task(rugged_wire.create(model=model, stream=stream, timeout=PATIENCE))
    await rugged.asks(model)
    index = await runs_it(rugged, model)
    [[response_id]] = await rugged.sql("SELECT id FROM responses WHERE model = %s", model)
    if stream:
        await eventually(
            lambda: rugged.sql("SELECT 1 FROM events WHERE response_id = %s", response_id)
        )
    old = await kill(rugged, index)
    await asyncio.gather(asking, return_exceptions=True)

    response = await ended(rugged_wire, response_id)

    assert response["status"] == "failed"
    assert response["error"]["code"] == "server_error"
    assert "worker" in response["error"]["message"]
    await rugged.replaced(index, old)
    if stream:
        read = await rugged_wire.resume(response_id)
        assert response_of(check_stream(bytes(read.raw), taken_over=True)) == response
        assert response["output"][0]["content"][0]["text"] == "Hel"
    assert len(rugged.asked(model)) == 1


async def test_a_response_in_the_background_is_taken_over(rugged: Stack, rugged_wire: Wire) -> None:
    """P4, P6: it is run again, in the stream that was begun."""
    gate = asyncio.Event()
    model = rugged.plays(BEGUN, Hold(gate), ANSWER[5:])
    async with rugged_wire.open(model=model, background=True) as reading:
        await reading.until("response.output_text.delta", timeout=PATIENCE)
        response_id = reading.events[0]["response"]["id"]
    index = await runs_it(rugged, model)
    old = await kill(rugged, index)
    await rugged.asks(model, 2)
    gate.set()

    response = await ended(rugged_wire, response_id)

    assert response["status"] == "completed"
    assert [item["content"][0]["text"] for item in response["output"]] == ["Hel", "Hello"]
    assert [item["status"] for item in response["output"]] == ["incomplete", "completed"]
    first, second = rugged.asked(model)
    assert first.body == second.body
    await rugged.replaced(index, old)
    whole = await rugged_wire.resume(response_id)
    kept = reading.logged
    assert whole.logged[: len(kept)] == kept
    assert response_of(check_stream(bytes(whole.raw), taken_over=True)) == response
    rest = await rugged_wire.resume(response_id, len(kept) - 1)
    assert rest.logged == whole.logged[len(kept) :]


async def test_a_response_in_the_background_without_a_stream_begins_anew(
    rugged: Stack, rugged_wire: Wire
) -> None:
    """P4: nobody has seen anything of its first run."""
    gate = asyncio.Event()
    model = rugged.plays(BEGUN, Hold(gate), ANSWER[5:])
    queued = await rugged_wire.create(model=model, background=True, stream=False)
    response_id = queued.json["id"]
    await rugged.asks(model)
    index = await runs_it(rugged, model)
    old = await kill(rugged, index)
    await rugged.asks(model, 2)
    gate.set()
    response = await ended(rugged_wire, response_id)
    assert response["status"] == "completed"
    assert [item["content"][0]["text"] for item in response["output"]] == ["Hello"]
    await rugged.replaced(index, old)


async def test_who_follows_is_served_by_the_worker_that_is_left(
    rugged: Stack, rugged_wire: Wire
) -> None:
    """P6: through the death of the worker that ran it, without a break."""
    gate = asyncio.Event()
    model = rugged.plays(BEGUN, Hold(gate), ANSWER[5:])
    async with rugged_wire.open(model=model, background=True) as reading:
        await reading.until("response.output_text.delta", timeout=PATIENCE)
        response_id = reading.events[0]["response"]["id"]
    index = await runs_it(rugged, model)
    async with (
        rugged.door(1 - index) as other,
        open_session(other) as session,
        Wire(session).follow(response_id) as following,
    ):
        await following.until("response.output_text.delta")
        old = await kill(rugged, index)
        await rugged.asks(model, 2)
        gate.set()
        await following.rest(PATIENCE)
    response = response_of(check_stream(bytes(following.raw), taken_over=True))
    assert response["status"] == "completed"
    await rugged.replaced(index, old)


@pytest_asyncio.fixture(scope="module")
async def lonely(postgres_server: EmbeddedPostgres, stage: ScriptedModel) -> AsyncIterator[Stack]:
    """One worker whose leases outlast every test."""
    async with running_stack(
        stage,
        await create_database(postgres_server),
        sidecar={"workers": 1},
        postgres={"lease_seconds": NEVER},
    ) as running:
        yield running


async def test_a_worker_that_is_started_again_inherits_at_once(lonely: Stack) -> None:
    """P4: it does not wait for leases to run out that were its own."""
    gate = asyncio.Event()
    model = lonely.plays(BEGUN, Hold(gate), ANSWER[5:])
    async with open_session(lonely.url) as session:
        wire = Wire(session)
        asking = asyncio.create_task(wire.stream(model))
        queued = await wire.create(model=model, background=True, stream=False)
        await lonely.asks(model, 2)
        stored = await lonely.sql("SELECT id FROM responses WHERE model = %s", model)
        ids = {response_id for [response_id] in stored}
        old = await kill(lonely, 0)
        await asyncio.gather(asking, return_exceptions=True)
        await lonely.replaced(0, old)
        gate.set()
        [failed] = ids - {queued.json["id"]}
        assert (await ended(wire, failed))["status"] == "failed"
        assert (await ended(wire, queued.json["id"]))["status"] == "completed"
