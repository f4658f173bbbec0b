"""Much at once and large things: bounded in time, so that the suite stays quick."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from tests.support import replies
from tests.support.replies import say, text
from tests.support.scripts import Hold
from tests.support.stack import Stack, eventually, memory
from tests.support.wire import Reading, Wire

MEGABYTE = 1 << 20
# One text may have 10 MiB, so a larger body has several.
TEXT = 5_000_000
ANSWER = replies.stream(text("Hel", "lo"))


@pytest.mark.parametrize(("texts", "size"), [(1, MEGABYTE), (4, TEXT)], ids=["1MB", "20MB"])
async def test_a_large_body_passes_through_all_turns(
    stack: Stack, wire: Wire, texts: int, size: int
) -> None:
    """E7: received, stored, sent on, read back, and replayed in the next turn."""
    model = stack.plays(say(text("ok")))
    given = [{"role": "user", "content": chr(97 + i) * size} for i in range(texts)]

    one = await wire.create(model=model, input=given, timeout=30)
    two = await wire.create(model=model, previous_response_id=one.response["id"], timeout=30)

    assert two.ending["type"] == "response.completed"
    sent = stack.asked(model)[1].json["input"]
    assert [item["content"] for item in sent[:texts]] == [item["content"] for item in given]
    shown = [item["content"][0]["text"] async for item in _input_items(wire, one.response["id"])]
    assert shown == [item["content"] for item in given]


async def _input_items(wire: Wire, response_id: str) -> AsyncIterator[dict[str, Any]]:
    """Yield all of them: a page has some megabytes at the most."""
    path, after = f"/v1/responses/{response_id}/input_items?order=asc", ""
    while True:
        page = (await wire.ask("GET", path + after)).json
        for item in page["data"]:
            yield item
        if not page["has_more"]:
            return
        after = f"&after={page['last_id']}"


async def test_a_small_request_does_not_wait_for_large_ones(stack: Stack, wire: Wire) -> None:
    """E6: while 5 MB bodies are on their way, others get their answers."""
    model, small = stack.plays(say(text("ok"))), stack.plays(say(text("ok")))
    async with asyncio.TaskGroup() as group:
        large = [
            group.create_task(wire.create(model=model, input="x" * TEXT, stream=False, timeout=30))
            for _ in range(6)
        ]
        for _ in range(10):
            assert (await wire.create(model=small, stream=False, timeout=5)).status == 200

    assert [task.result().status for task in large] == [200] * 6


@pytest.mark.parametrize("count", [100, 1100])
async def test_none_of_many_concurrent_streams_is_refused(
    stack: Stack, wire: Wire, count: int
) -> None:
    """E3: all open at the same moment, more than Envoy's default allows; each keeps every rule."""
    gate = asyncio.Event()
    model = stack.plays(ANSWER[:5], Hold(gate), ANSWER[5:])
    opened = 0

    async def one() -> Reading:
        nonlocal opened
        async with wire.open(model=model) as reading:
            await reading.until("response.output_text.delta", timeout=60)
            opened += 1
            await reading.rest(60)
            return reading

    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(one()) for _ in range(count)]
        await eventually(lambda: opened == count, timeout=60)
        gate.set()

    assert {task.result().ending["type"] for task in tasks} == {"response.completed"}
    [[stored]] = await stack.sql(
        "SELECT count(*) FROM responses WHERE model = %s AND status = 'completed'", model
    )
    assert stored == count


async def test_both_workers_take_their_share(stack: Stack, wire: Wire) -> None:
    """E3: endpoints are balanced; neither worker idles under load."""
    gate = asyncio.Event()
    model = stack.plays(ANSWER[:5], Hold(gate), ANSWER[5:])
    async with asyncio.TaskGroup() as group:
        for _ in range(40):
            group.create_task(wire.stream(model))
        await stack.asks(model, 40)
        shares = await stack.running_by_worker(model)
        gate.set()

    assert sum(shares) == 40
    assert min(shares) >= 10


async def test_memory_comes_back_after_the_load(stack: Stack, wire: Wire) -> None:
    """X5: three rounds of the same load end where the first one ended."""
    model = stack.plays(replies.stream(text(*["token "] * 400)))
    workers = [stack.worker(0), stack.worker(1)]

    async def load() -> int:
        seen = await asyncio.gather(*(wire.stream(model, timeout=30) for _ in range(40)))
        assert all(answer.status == 200 for answer in seen)
        return sum(map(memory, workers))

    await load()
    first = await load()
    assert await load() - first < 24 * MEGABYTE
