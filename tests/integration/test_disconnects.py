"""Clients that leave before the end: what is stored outlives them, what is not is aborted."""

from __future__ import annotations

import asyncio
import time

import openai
import pytest

from tests.support import replies
from tests.support.fix_stack import BOTH_WAYS
from tests.support.replies import say, text
from tests.support.scripts import Hold
from tests.support.stack import Stack, eventually
from tests.support.wire import Wire

ANSWER = replies.stream(text("Hel", "lo"))
PROMPTLY = 2.0


async def status(wire: Wire, response_id: str) -> str:
    """Return the status of a stored response."""
    return str((await wire.get(response_id)).json["status"])


@BOTH_WAYS
async def test_a_stored_response_outlives_its_client(stack: Stack, wire: Wire) -> None:
    """P3: it runs on to its end, can be fetched whole, and continued."""
    gate = asyncio.Event()
    model = stack.plays(ANSWER[:5], Hold(gate), ANSWER[5:])

    async with wire.open(model=model) as reading:
        await reading.until("response.output_text.delta")
    response_id = reading.events[0]["response"]["id"]
    # The client has gone, the model is still at work.
    assert await status(wire, response_id) == "in_progress"
    assert not stack.asked(model)[0].aborted.is_set()
    gate.set()

    async def completed() -> bool:
        return await status(wire, response_id) == "completed"

    await eventually(completed)
    stored = (await wire.get(response_id)).json
    assert stored["output"][0]["content"][0]["text"] == "Hello"
    after = stack.plays(say(text("ok")))
    more = await wire.create(model=after, stream=False, previous_response_id=response_id)
    assert more.status == 200
    sent = stack.asked(after)[0].json["input"]
    assert [item["content"] for item in sent] == ["hi", "Hello", "hi"]


@BOTH_WAYS
async def test_a_stored_response_outlives_a_client_that_does_not_stream(
    stack: Stack, wire: Wire
) -> None:
    """P3: the same without a stream; its id is found by listing."""
    gate = asyncio.Event()
    model = stack.plays(ANSWER[:5], Hold(gate), ANSWER[5:])
    asking = asyncio.create_task(wire.create(model=model, stream=False))
    await stack.asks(model)
    await eventually(lambda: stack.sql("SELECT 1 FROM responses WHERE model = %s", model))
    asking.cancel()
    await asyncio.gather(asking, return_exceptions=True)
    gate.set()

    async def completed() -> bool:
        seen = await wire.ask("GET", "/v1/responses", params={"model": model})
        return [response["status"] for response in seen.json["data"]] == ["completed"]

    await eventually(completed)


@BOTH_WAYS
@pytest.mark.parametrize("stream", [True, False], ids=["stream", "whole"])
@pytest.mark.parametrize("begun", [True, False], ids=["begun", "waiting"])
async def test_what_nobody_can_read_is_not_generated(
    stack: Stack, wire: Wire, stream: bool, begun: bool
) -> None:
    """P3, P5: with store false the model server sees the abort at once."""
    never = asyncio.Event()
    model = stack.plays(*([ANSWER[:5]] if begun else []), Hold(never))
    asking = asyncio.create_task(wire.create(model=model, stream=stream, store=False))
    received = await stack.asks(model)
    assert not received.aborted.is_set()

    left = time.monotonic()
    asking.cancel()
    await asyncio.gather(asking, return_exceptions=True)
    await received.wait_aborted()

    assert time.monotonic() - left < PROMPTLY


@BOTH_WAYS
async def test_the_sdks_close_is_a_disconnect(stack: Stack, client: openai.AsyncOpenAI) -> None:
    """P3: `stream.close()`, as programs stop a generation."""
    never = asyncio.Event()
    model = stack.plays(ANSWER[:5], Hold(never))

    stream = await client.responses.create(model=model, input="hi", stream=True, store=False)
    async for event in stream:
        if event.type == "response.output_text.delta":
            break
    await stream.close()

    await stack.asked(model)[0].wait_aborted()


async def test_a_client_that_leaves_in_its_own_request_costs_nothing(
    stack: Stack, wire: Wire
) -> None:
    """X5: half a body is no request: no model call, no row, no error in the log."""
    model = stack.plays(say(text("never")))
    errors = [line for line in stack.said if '"level":"error"' in line]
    host, _, port = stack.url.removeprefix("http://").partition(":")
    # Whole JSON already, but the length promises more.
    body = f'{{"model": "{model}", "input": "hi"}}'
    started = await stack.stat("http.public.downstream_cx_destroy_remote_active_rq")
    for _ in range(5):
        _, writer = await asyncio.open_connection(host, int(port))
        head = "POST /v1/responses HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"
        writer.write(f"{head}content-length: {len(body) + 100}\r\n\r\n{body}".encode())
        await writer.drain()
        await eventually(lambda: stack.stat("http.public.downstream_rq_active"))
        writer.close()
        await writer.wait_closed()

    async def noticed() -> bool:
        now = await stack.stat("http.public.downstream_cx_destroy_remote_active_rq")
        return now >= started + 5

    await eventually(noticed)
    # A request of ours goes behind them through both workers.
    await asyncio.gather(*(wire.create(model="demo", stream=False) for _ in range(10)))
    assert stack.asked(model) == []
    assert await stack.sql("SELECT 1 FROM responses WHERE model = %s", model) == []
    assert [line for line in stack.said if '"level":"error"' in line] == errors


@BOTH_WAYS
async def test_many_clients_that_leave_leave_nothing_behind(stack: Stack, wire: Wire) -> None:
    """P3: forty leave in the middle of their streams; all responses complete, nothing is logged."""
    gate = asyncio.Event()
    model = stack.plays(ANSWER[:5], Hold(gate), ANSWER[5:])

    async def leave() -> None:
        async with wire.open(model=model) as reading:
            await reading.until("response.output_text.delta")

    await asyncio.gather(*(leave() for _ in range(40)))
    gate.set()

    async def all_completed() -> bool:
        [[count]] = await stack.sql(
            "SELECT count(*) FROM responses WHERE model = %s AND status = 'completed'", model
        )
        return bool(count == 40)

    await eventually(all_completed)
    assert not [line for line in stack.said if "Traceback" in line or '"level":"error"' in line]
