"""Postgres killed with SIGKILL, at the worst moments; a response is acknowledged or it is not."""

from __future__ import annotations

import asyncio
import time

import openai
import pytest

from tests.support import replies
from tests.support.replies import say, text
from tests.support.scripts import Hold
from tests.support.stack import KillablePostgres, Stack, eventually
from tests.support.wire import Wire

ANSWER = replies.stream(text("Hel", "lo"))


async def works(wire: Wire, model: str) -> bool:
    """Return whether a request succeeds."""
    return (await wire.create(model=model, stream=False)).status == 200


async def restarted(postgres: KillablePostgres, stack: Stack, wire: Wire) -> None:
    """Start Postgres and wait until each worker has found it, with nothing else done to them."""
    await postgres.start()
    model = stack.plays(say(text("ok")))
    for _ in range(2 * stack.settings.sidecar.workers):
        await eventually(lambda: works(wire, model))


@pytest.mark.parametrize("stream", [True, False], ids=["stream", "whole"])
async def test_no_success_is_told_when_the_commit_cannot_be_made(
    own_stack: Stack, own_postgres: KillablePostgres, own_wire: Wire, stream: bool
) -> None:
    """P1: Postgres dies between the last delta and the commit; the client sees a failure."""
    gate = asyncio.Event()
    model = own_stack.plays(ANSWER[:-1], Hold(gate), ANSWER[-1:])
    pids = [own_stack.worker(index) for index in range(2)]

    asking = asyncio.create_task(own_wire.create(model=model, stream=stream))
    received = await own_stack.asks(model)
    await eventually(lambda: own_stack.sql("SELECT 1 FROM responses WHERE model = %s", model))
    await own_postgres.kill()
    gate.set()
    seen = await asking
    await received.wait_over()

    if stream:
        assert seen.ending["type"] == "response.failed"
        assert seen.text == "Hello"
        assert "response.completed" not in seen.kinds
    else:
        assert seen.status == 503
        assert seen.error["code"] == "storage_unavailable"
    await restarted(own_postgres, own_stack, own_wire)
    if stream:
        stored = await own_wire.get(seen.response["id"])
        assert stored.json["status"] != "completed"
    assert [own_stack.worker(index) for index in range(2)] == pids


async def test_nothing_acknowledged_is_lost_by_a_crash(
    own_stack: Stack, own_postgres: KillablePostgres, own_wire: Wire
) -> None:
    """P1, promise 1: responses are made as fast as they can be; each one that ended well is there."""
    model = own_stack.plays(say(text("Hel", "lo")))
    acknowledged: list[str] = []
    refused: list[int] = []

    async def write() -> None:
        while not refused:
            seen = await own_wire.create(model=model, stream=len(acknowledged) % 2 == 0)
            if seen.status != 200:
                refused.append(seen.status)
            elif seen.headers["content-type"] == "application/json":
                acknowledged.append(seen.json["id"])
            elif seen.ending["type"] == "response.completed":
                acknowledged.append(seen.response["id"])
            else:
                refused.append(0)

    async with asyncio.TaskGroup() as group:
        for _ in range(8):
            group.create_task(write())
        await eventually(lambda: len(acknowledged) >= 100)
        await own_postgres.kill()

    assert set(refused) <= {0, 503}
    await restarted(own_postgres, own_stack, own_wire)
    rows = await own_stack.sql("SELECT id FROM responses WHERE status = 'completed'")
    assert set(acknowledged) <= {row[0] for row in rows}
    last = await own_wire.create(
        model=model, stream=False, previous_response_id=acknowledged[-1], input="go on"
    )
    assert last.status == 200
    texts = [item["content"] for item in own_stack.asked(model)[-1].json["input"]]
    assert texts == ["hi", "Hello", "go on"]


async def test_without_postgres_requests_are_refused_at_once(
    own_stack: Stack, own_postgres: KillablePostgres, own_wire: Wire
) -> None:
    """P2: 503 with Retry-After, within moments, on each route; what is not stored goes on working."""
    model = own_stack.plays(say(text("Hello")))
    await own_postgres.kill()

    began = time.monotonic()
    for _ in range(4):
        refused = [
            await own_wire.create(model=model, stream=False),
            await own_wire.create(model=model),
            await own_wire.create(model=model, stream=False, previous_response_id="resp_x"),
            await own_wire.get("resp_x"),
            await own_wire.ask("DELETE", "/v1/responses/resp_x"),
            await own_wire.ask("GET", "/v1/responses"),
        ]
        for seen in refused:
            assert seen.status == 503
            assert seen.error["code"] == "storage_unavailable"
            assert seen.error["type"] == "server_error"
            assert seen.headers["retry-after"] == "1"
    assert time.monotonic() - began < 4
    unstored = await own_wire.create(model=model, stream=False, store=False)
    assert unstored.status == 200
    unstored_stream = await own_wire.stream(model, store=False)
    assert unstored_stream.ending["type"] == "response.completed"

    pids = [own_stack.worker(index) for index in range(2)]
    await restarted(own_postgres, own_stack, own_wire)
    assert [own_stack.worker(index) for index in range(2)] == pids


async def test_a_refused_request_does_not_keep_the_model_busy(
    own_stack: Stack, own_postgres: KillablePostgres, own_wire: Wire
) -> None:
    """P2: the call that was begun beside the store's is aborted, not left to generate."""
    gate = asyncio.Event()
    model = own_stack.plays(ANSWER[:-1], Hold(gate), ANSWER[-1:])
    await own_postgres.kill()

    seen = await own_wire.create(model=model)

    assert seen.status == 503
    for received in own_stack.asked(model):
        await received.wait_over()
        assert received.aborted.is_set()
    await restarted(own_postgres, own_stack, own_wire)


async def test_a_restart_between_two_requests_costs_none(
    own_stack: Stack, own_postgres: KillablePostgres, own_wire: Wire
) -> None:
    """P2: connections that died in a quick restart are found out and replaced, unseen by clients."""
    model = own_stack.plays(say(text("ok")))
    assert await works(own_wire, model)
    await own_postgres.kill()
    await own_postgres.start()

    answers = [await own_wire.create(model=model, stream=False) for _ in range(20)]

    assert [seen.status for seen in answers] == [200] * 20


async def test_the_sdks_retries_bridge_an_outage(
    own_stack: Stack, own_postgres: KillablePostgres
) -> None:
    """P2, R15: 503 with Retry-After is what makes the SDK try again, and then it works."""
    model = own_stack.plays(say(text("Hello")))
    await own_postgres.kill()
    async with (
        openai.AsyncOpenAI(base_url=f"{own_stack.url}/v1", api_key="x", max_retries=5) as client,
        asyncio.TaskGroup() as group,
    ):
        refused = await own_stack.stat("http.public.downstream_rq_5xx")
        asking = group.create_task(client.responses.create(model=model, input="hi"))

        async def was_refused() -> bool:
            return await own_stack.stat("http.public.downstream_rq_5xx") > refused

        await eventually(was_refused)
        await own_postgres.start()

    assert asking.result().output_text == "Hello"
