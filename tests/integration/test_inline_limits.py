"""What ends an inline exchange before its time, and what is held fast then: the limits of docs/inline.md."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from functools import partial
from typing import Any

import pytest
import pytest_asyncio

from tests.support import replies
from tests.support.fix_stack import INLINE, open_session
from tests.support.replies import say, text
from tests.support.scripted_model import ScriptedModel
from tests.support.scripts import Cut, Hold, Start
from tests.support.stack import (
    KillablePostgres,
    Stack,
    eventually,
    running_stack,
)
from tests.support.wire import RESPONSES, Wire

ANSWER = replies.stream(text("Hel", "lo"))
STREAM_OR_WHOLE = pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])


@pytest_asyncio.fixture(scope="module")
async def frail(own_postgres: KillablePostgres, stage: ScriptedModel) -> AsyncIterator[Stack]:
    """A stack that may be hurt, inline, for which a second is a long time."""
    assert own_postgres.server is not None
    async with running_stack(
        stage,
        own_postgres.server.conninfo,
        sidecar={"workers": 2, "heartbeat_seconds": 0.1, "open_after_seconds": 0.2},
        model={"silence_seconds": 1.0},
        postgres={"outage_seconds": 1.0, "lease_seconds": 2.0},
        envoy={"inline": True},
    ) as running:
        yield running


@pytest_asyncio.fixture(scope="module")
async def frail_wire(frail: Stack) -> AsyncIterator[Wire]:
    """A plain client of it."""
    async with open_session(frail.url) as session:
        yield Wire(session)


async def status_of(stack: Stack, model: str) -> str:
    """Return the status of the one response with that model; empty while there is none."""
    rows = await stack.sql("SELECT status FROM responses WHERE model = %s", model)
    return str(rows[0][0]) if rows else ""


async def has_ended(stack: Stack, model: str) -> bool:
    """Tell whether nothing is in progress; what was refused has left no row."""
    return await status_of(stack, model) in ("", "failed")


async def becomes(stack: Stack, model: str, status: str) -> dict[str, Any]:
    """Wait until the one response with that model has a status; return the response."""

    async def has() -> bool:
        return await status_of(stack, model) == status

    await eventually(has)
    async with open_session(stack.url) as session:
        listed = (await Wire(session).ask("GET", RESPONSES, params={"model": model})).json["data"]
    [stored] = listed
    found: dict[str, Any] = stored
    return found


# -- limits ------------------------------------------------------------------------------------------


@INLINE
@pytest.mark.parametrize("reset", [False, True], ids=["fin", "rst"])
async def test_a_model_server_that_breaks_off_ends_the_clients_stream(
    stack: Stack, wire: Wire, reset: bool
) -> None:
    """P3: no terminal event can be sent any more, but it is stored as failed, with what was made."""
    gate = asyncio.Event()
    model = stack.plays(ANSWER[:5], Hold(gate), Cut(reset=reset))

    async with wire.open(model=model) as reading:
        await reading.until("response.output_text.delta")
        gate.set()
        await reading.rest()

    assert not reading.clean
    assert "response.failed" not in reading.kinds
    stored = await becomes(stack, model, "failed")
    assert stored["id"] == reading.events[0]["response"]["id"]
    assert "broke off" in stored["error"]["message"]
    resumed = await wire.resume(stored["id"])
    assert resumed.ending["type"] == "response.failed"
    assert resumed.text == "Hel"


@INLINE
@STREAM_OR_WHOLE
async def test_a_model_server_that_breaks_off_before_its_body_is_an_error(
    stack: Stack, wire: Wire, stream: bool
) -> None:
    """R15: while nothing was sent to the client, Envoy can still answer it."""
    for steps in ([Cut()], [Start(), Cut(reset=True)]):
        model = stack.plays(*steps)

        seen = await wire.create(model=model, stream=stream)

        assert seen.status in (502, 503)
        assert seen.error["type"] == "server_error"
        await eventually(partial(has_ended, stack, model))


@INLINE
@pytest.mark.parametrize(("policy", "status"), [("continue", "failed"), ("cancel", "incomplete")])
async def test_a_client_that_leaves_ends_its_call(
    stack: Stack, wire: Wire, policy: str, status: str
) -> None:
    """P3: the call ends with its request, whatever was asked for; the response is stored and ended."""
    model = stack.plays(ANSWER[:5], Hold(asyncio.Event()))

    async with wire.open({"holdfast-on-disconnect": policy}, model=model) as reading:
        await reading.until("response.output_text.delta")

    await stack.asked(model)[0].wait_aborted()
    stored = await becomes(stack, model, status)
    assert stored["output"][0]["content"][0]["text"] == "Hel"


async def test_a_model_server_without_a_status_is_a_502(frail: Stack, frail_wire: Wire) -> None:
    """R15: it is silent for too long; what was sent on can still be answered by us."""
    model = frail.plays(Hold(asyncio.Event()))

    seen = await frail_wire.create(model=model, stream=False)

    assert seen.status == 502
    assert "silent" in seen.error["message"]
    await frail.asked(model)[0].wait_aborted()


@pytest.mark.parametrize("started", [False, True], ids=["no-status", "no-body"])
async def test_a_stream_that_cannot_begin_ends_in_one_piece(
    frail: Stack, frail_wire: Wire, started: bool
) -> None:
    """R1, R16: its events wait for the model's first byte; where none comes they are sent at the end."""
    start = [Start()] if started else []
    model = frail.plays(*start, Hold(asyncio.Event()))

    seen = await frail_wire.stream(model)

    assert seen.ending["type"] == "response.failed"
    assert "silent" in seen.response["error"]["message"]
    assert await status_of(frail, model) == "failed"


async def test_a_slow_start_is_silent_and_then_whole(frail: Stack, frail_wire: Wire) -> None:
    """R16: the stream begins with the model's first byte and not before, and lacks nothing."""
    gate = asyncio.Event()
    model = frail.plays(Hold(gate), ANSWER)
    asking = asyncio.create_task(frail_wire.stream(model))
    # Longer than `open_after`: the stream is made, and cannot be sent.
    await eventually(lambda: frail.sql("SELECT 1 FROM events JOIN responses r ON r.id = response_id"
                                       " WHERE model = %s", model))  # fmt: skip
    assert not asking.done()

    gate.set()
    seen = await asking

    assert seen.ending["type"] == "response.completed"
    assert seen.text == "Hello"


async def test_a_late_refusal_is_an_event(frail: Stack, frail_wire: Wire) -> None:
    """R16: a stream that was begun keeps its 200, whatever the model server's status is."""
    gate = asyncio.Event()
    model = frail.plays(Hold(gate), replies.bad_request())
    asking = asyncio.create_task(frail_wire.stream(model))
    await eventually(lambda: frail.sql("SELECT 1 FROM events JOIN responses r ON r.id = response_id"
                                       " WHERE model = %s", model))  # fmt: skip

    gate.set()
    seen = await asking

    assert seen.status == 200
    assert seen.ending["type"] == "response.failed"


# -- what is held fast ---------------------------------------------------------------------------------


async def test_a_killed_worker_leaves_a_failed_response(frail: Stack, frail_wire: Wire) -> None:
    """P4: within its lease; the client's stream is cut and the call aborted."""
    model = frail.plays(ANSWER[:5], Hold(asyncio.Event()))

    async with frail_wire.open(model=model) as reading:
        await reading.until("response.output_text.delta")
        running = await frail.running_by_worker(model)
        victim = frail.worker(running.index(1))
        os.kill(victim, signal.SIGKILL)
        await reading.rest()

    assert not reading.clean
    await frail.asked(model)[0].wait_aborted()
    await becomes(frail, model, "failed")
    await frail.replaced(running.index(1), victim)


@STREAM_OR_WHOLE
async def test_a_store_that_is_away_at_the_end_is_waited_for_and_then_it_failed(
    frail: Stack, own_postgres: KillablePostgres, frail_wire: Wire, stream: bool
) -> None:
    """P1, P2: the model's answer has ended; ours is held open, and no success is ever seen."""
    gate = asyncio.Event()
    model = frail.plays(ANSWER[:-1], Hold(gate), ANSWER[-1:])
    asking = asyncio.create_task(frail_wire.create(model=model, stream=stream))
    received = await frail.asks(model)
    await eventually(lambda: frail.sql("SELECT 1 FROM responses WHERE model = %s", model))
    await own_postgres.kill()
    gate.set()
    await received.wait_over()

    seen = await asking

    if stream:
        assert seen.ending["type"] == "response.failed"
        assert seen.comments
    else:
        assert seen.status == 503
    await own_postgres.start()

    async def works() -> bool:
        again = await frail_wire.create(model=frail.plays(say(text("ok"))), stream=False)
        return again.status == 200

    await eventually(works)


async def test_a_store_that_is_away_refuses_and_aborts(
    frail: Stack, own_postgres: KillablePostgres, frail_wire: Wire
) -> None:
    """P2: the request may have travelled on already; its call ends with it."""
    model = frail.plays(ANSWER[:-1], Hold(asyncio.Event()))
    await own_postgres.kill()

    seen = await frail_wire.create(model=model)

    assert seen.status == 503
    for received in frail.asked(model):
        await received.wait_aborted()
    await own_postgres.start()
