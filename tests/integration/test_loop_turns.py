"""Every turn of a response that runs tools is a request through Envoy: balanced, tried again, counted."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from collections.abc import AsyncIterator, Callable
from typing import Any

import openai
import pytest
import pytest_asyncio

from storage.postgres.embedded import EmbeddedPostgres
from tests.support import replies
from tests.support.fix_postgres import create_database
from tests.support.fix_stack import open_session
from tests.support.mcp_server import McpServer
from tests.support.mcp_turns import declared
from tests.support.replies import call, say, text
from tests.support.scripted_model import Received, ScriptedModel
from tests.support.scripts import ByOutputs, Cut, Hold, Script, Step
from tests.support.stack import CLIENT_KEY, Stack, eventually, running_stack
from tests.support.stream_rules import check_stream
from tests.support.wire import Wire

DONE = say(text("all", " done"))
BUSY = Script(replies.refused(503, "busy", "ServiceUnavailableError"))
PATIENCE = 60.0


class Pair:
    """A stack whose model cluster has two servers, and what they were asked."""

    def __init__(self, stack: Stack, wire: Wire, other: ScriptedModel) -> None:
        self.stack = stack
        self.wire = wire
        self._other = other

    def asked(self, model: str) -> list[list[Received]]:
        """Return the calls under a model name, by the server that took them."""
        name = f'"{model}"'.encode()
        return [
            [received for received in server.requests if name in received.body[:1000]]
            for server in (self.stack.model, self._other)
        ]

    def count(self, model: str) -> int:
        """Return how often both were asked."""
        return sum(map(len, self.asked(model)))

    async def counters(self) -> dict[str, int]:
        """Return Envoy's own counters of model turns and of what became of them."""
        return {name: await self.stack.stat(stat) for name, stat in _COUNTERS.items()}

    async def counted(self, before: dict[str, int]) -> dict[str, int]:
        """Return how much the counters have grown."""
        return {name: now - before[name] for name, now in (await self.counters()).items()}


_COUNTERS = {
    "turns": "http.model.downstream_rq_total",
    "requests": "cluster.model.upstream_rq_total",
    "retries": "cluster.model.upstream_rq_retry",
}


@pytest_asyncio.fixture(scope="module")
async def pair(postgres_server: EmbeddedPostgres) -> AsyncIterator[Pair]:
    """Two workers before two model servers; leases are short, as the tests kill workers."""
    async with (
        ScriptedModel() as one,
        one.twin() as other,
        running_stack(
            one,
            await create_database(postgres_server),
            model={"url": f"{one.url},{other.url}"},
            sidecar={"workers": 2, "drain_seconds": 1, "grace_seconds": 2},
            postgres={"lease_seconds": 2.0},
            outbound={"allow_http": True, "networks": "127.0.0.0/8"},
        ) as stack,
        open_session(stack.url) as session,
    ):
        yield Pair(stack, Wire(session), other)


def echoes(stack: Stack, *rounds: str) -> str:
    """Return a model that calls `echo` with these texts, one a turn, and then says that it is done."""
    scripts = {
        number: say(call("echo", json.dumps({"text": said}))) for number, said in enumerate(rounds)
    }
    return stack.plays(ByOutputs({**scripts, len(rounds): DONE}))


async def test_each_turn_of_many_responses_is_balanced_over_both_servers(pair: Pair) -> None:
    """T1, R3, R4: 20 streams of three turns, read by the SDK: 60 requests, no more and no fewer."""
    before = await pair.counters()
    models = [echoes(pair.stack, f"{number}-a", f"{number}-b") for number in range(20)]
    async with (
        McpServer() as server,
        openai.AsyncOpenAI(
            base_url=f"{pair.stack.url}/v1", api_key=CLIENT_KEY, max_retries=0, timeout=PATIENCE
        ) as sdk,
    ):

        async def streamed(model: str) -> Any:
            tools: Any = [declared(server.url)]
            async with sdk.responses.stream(model=model, input="hi", tools=tools) as stream:
                numbers = [event.sequence_number async for event in stream]
                assert numbers == list(range(len(numbers)))
                return await stream.get_final_response()

        made = await asyncio.gather(*map(streamed, models))
        assert server.calls == ["echo"] * 40

    for number, response in enumerate(made):
        _, first, second, _ = response.output
        assert [first.output, second.output] == [f"{number}-a", f"{number}-b"]
        assert response.output_text == "all done"
    by_server = [[] for _ in range(2)]  # type: list[list[Received]]
    for model in models:
        asked = pair.asked(model)
        assert sum(map(len, asked)) == 3
        for taken, received in zip(by_server, asked, strict=True):
            taken += received
    assert all(by_server), "one of the two was never asked"
    assert all("x-request-id" in received.headers for taken in by_server for received in taken)
    assert await pair.counted(before) == {"turns": 60, "requests": 60, "retries": 0}


@pytest.mark.parametrize("refusals", [1, 2])
async def test_a_later_turn_that_is_refused_is_tried_again_by_envoy(
    pair: Pair, refusals: int
) -> None:
    """T2, R4: a 503 before the first byte costs a request, not a call of the tool, and shows nowhere."""
    model = pair.stack.plays(ByOutputs({0: say(call("slow", "{}")), 1: DONE}))
    before = await pair.counters()
    async with (
        McpServer() as server,
        pair.wire.open(model=model, tools=[declared(server.url)]) as reading,
    ):
        await server.under_way(1)
        pair.stack.model.script(*[BUSY] * refusals)
        server.release.set()
        await reading.rest()
        assert server.calls == ["slow"]

    assert reading.response["status"] == "completed"
    assert "error" not in reading.kinds
    assert pair.stack.model.unused == 0
    assert pair.count(model) == 2 + refusals
    counted = {"turns": 2, "requests": 2 + refusals, "retries": refusals}
    assert await pair.counted(before) == counted


@pytest.mark.parametrize("stream", [True, False], ids=["stream", "whole"])
async def test_a_later_turn_that_is_refused_for_good_ends_the_response(
    pair: Pair, stream: bool
) -> None:
    """R1, R13: three requests and no more; the caller is told not to send it all again."""
    model = pair.stack.plays(ByOutputs({0: say(call("slow", "{}")), 1: DONE}))
    before = await pair.counters()
    async with (
        McpServer() as server,
        asyncio.TaskGroup() as group,
    ):
        asking = group.create_task(
            pair.wire.create(model=model, stream=stream, tools=[declared(server.url)])
        )
        await server.under_way(1)
        pair.stack.model.script(*[BUSY] * 3)
        server.release.set()
        seen = await asking
        assert server.calls == ["slow"]

    if stream:
        assert (seen.ending["type"], seen.kinds.count("error")) == ("response.failed", 1)
        assert [item["type"] for item in seen.response["output"]][1:] == ["mcp_call"]
    else:
        assert (seen.status, seen.headers["x-should-retry"]) == (503, "false")
    assert pair.count(model) == 4
    assert await pair.counted(before) == {"turns": 2, "requests": 4, "retries": 2}


async def test_a_later_turn_that_breaks_off_after_its_first_byte_is_not_tried_again(
    pair: Pair,
) -> None:
    """R1, R5: tokens cost money; what was made stays shown, and is stored as it was seen."""
    cut = Script(replies.stream(text("all", " done"))[:5], Cut())
    model = pair.stack.plays(ByOutputs({0: say(call("echo", '{"text": "x"}')), 1: cut}))
    before = await pair.counters()
    async with McpServer() as server:
        seen = await pair.wire.create(model=model, tools=[declared(server.url)])
        assert server.calls == ["echo"]

    assert seen.ending["type"] == "response.failed"
    assert [(i["type"], i.get("status")) for i in seen.response["output"]][1:] == [
        ("mcp_call", "completed"),
        ("message", "incomplete"),
    ]
    assert (await pair.wire.get(seen.response["id"])).json == seen.response
    assert await pair.counted(before) == {"turns": 2, "requests": 2, "retries": 0}


_HELD: dict[str, Callable[[asyncio.Event], tuple[Step, ...]]] = {
    "before the status": lambda gate: (Hold(gate), *DONE.steps),
    "in the middle": lambda gate: (
        replies.stream(text("all", " done"))[:5],
        Hold(gate),
        replies.stream(text("all", " done"))[5:],
    ),
}


@pytest.mark.timeout(240)
@pytest.mark.parametrize("where", _HELD)
async def test_killed_over_and_over_no_tool_is_called_twice(pair: Pair, where: str) -> None:
    """P4, T2: kill -9 of each worker in turn, while the turn behind the tools' results is under way."""
    each = 4
    gate = asyncio.Event()
    names = [f"{where} {number}" for number in range(each)]
    async with McpServer() as server:
        models = [
            pair.stack.plays(
                ByOutputs({
                    0: say(*(call("echo", json.dumps({"text": f"{name} {n}"})) for n in (1, 2))),
                    2: Script(*_HELD[where](gate)),
                })
            )
            for name in names
        ]  # fmt: skip
        ids = [await _queued(pair.wire, model, server) for model in models]
        for index in (0, 1):
            # The results are stored, and the model is asked with them: by the next worker once more.
            await eventually(lambda: all(_held(pair, model) for model in models), PATIENCE)
            await _kill(pair, index, models)
        await eventually(lambda: all(_held(pair, model) for model in models), PATIENCE)
        gate.set()
        made = [await _ended(pair.wire, response_id) for response_id in ids]
        assert server.calls == ["echo"] * 2 * each

    for name, response in zip(names, made, strict=True):
        assert response["status"] == "completed", response["error"]
        called = [item["output"] for item in response["output"] if item["type"] == "mcp_call"]
        assert called == [f"{name} 1", f"{name} 2"]
        whole = await pair.wire.resume(response["id"])
        assert check_stream(bytes(whole.raw), taken_over=True)[-1]["response"] == response


async def _queued(wire: Wire, model: str, server: McpServer) -> str:
    seen = await wire.create(
        model=model, background=True, stream=False, tools=[declared(server.url)]
    )
    assert seen.status == 200, bytes(seen.raw)
    return str(seen.json["id"])


def _held(pair: Pair, model: str) -> list[Received]:
    """Return the second turns of a response that are under way."""
    asked = [received for taken in pair.asked(model) for received in taken]
    return [
        received
        for received in asked
        if b"function_call_output" in received.body and not received.over.is_set()
    ]


async def _kill(pair: Pair, index: int, models: list[str]) -> None:
    """Kill a worker; returns when another one runs and the model knows that nobody reads the turns."""
    held = [
        received
        for model in models
        if (await pair.stack.running_by_worker(model))[index]
        for received in _held(pair, model)
    ]
    victim = pair.stack.worker(index)
    os.kill(victim, signal.SIGKILL)
    for received in held:
        await received.wait_aborted()
    await pair.stack.replaced(index, victim)


async def _ended(wire: Wire, response_id: str) -> Any:
    """Return a response once it has ended."""
    found: list[Any] = []

    async def over() -> bool:
        seen = await wire.get(response_id)
        if seen.status != 200 or not seen.clean:
            return False
        found[:] = [seen.json]
        return found[0]["status"] not in ("queued", "in_progress")

    await eventually(over, PATIENCE)
    return found[0]
