"""MCP servers behind the gateway: real servers, the real Envoy, the official SDK (rules T1-T7, X3, X4)."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from collections.abc import AsyncIterator
from typing import Any

import openai
import pytest
import pytest_asyncio

from storage.postgres.embedded import EmbeddedPostgres
from tests.support import replies
from tests.support.fix_postgres import create_database
from tests.support.fix_stack import open_session
from tests.support.mcp_server import McpServer
from tests.support.mcp_turns import Turns, declared
from tests.support.replies import call, say, text
from tests.support.scripted_model import ScriptedModel
from tests.support.scripts import Hold, Script
from tests.support.stack import CLIENT_KEY, Stack, eventually, running_stack
from tests.support.wire import Wire

DONE = say(text("done"))
SECRET = "sk-of-the-mcp-server"


@pytest_asyncio.fixture(scope="module", params=[False, True], ids=["relay", "inline"])
async def stack_to_here(
    postgres_server: EmbeddedPostgres, stage: ScriptedModel, request: pytest.FixtureRequest
) -> AsyncIterator[Stack]:
    """A stack that may reach servers on this machine, and waits a second for their tools.

    Inline, the first turn is the request itself and the others are appended to its answer.
    """
    async with running_stack(
        stage,
        await create_database(postgres_server),
        tools={"list_seconds": 10.0, "call_seconds": 2.0},
        outbound={"allow_http": True, "networks": "127.0.0.0/8"},
        envoy={"inline": request.param},
    ) as running:
        yield running


@pytest_asyncio.fixture(scope="module")
async def mcp_wire(stack_to_here: Stack) -> AsyncIterator[Wire]:
    """A plain client of it."""
    async with open_session(stack_to_here.url) as session:
        yield Wire(session)


@pytest_asyncio.fixture(scope="module")
async def mcp_client(stack_to_here: Stack) -> AsyncIterator[openai.AsyncOpenAI]:
    """The official SDK."""
    async with openai.AsyncOpenAI(
        base_url=f"{stack_to_here.url}/v1", api_key=CLIENT_KEY, max_retries=0, timeout=30
    ) as sdk:
        yield sdk


@pytest.mark.parametrize("transport", ["http", "sse"])
async def test_a_stream_of_the_sdk_with_a_tool(
    stack_to_here: Stack, mcp_client: openai.AsyncOpenAI, transport: Any
) -> None:
    """T1, R14: `responses.stream()` accepts it; every turn comes through Envoy's model listener."""
    turns = Turns(stack_to_here, say(call("echo", '{"text": "hey"}')), DONE)
    async with McpServer(transport) as server:
        tools: Any = [declared(server.url, authorization=SECRET)]
        async with mcp_client.responses.stream(model="m", input="hi", tools=tools) as stream:
            kinds = [event.type async for event in stream]
            response = await stream.get_final_response()

    assert "response.mcp_call.completed" in kinds
    assert not [kind for kind in kinds if "function_call" in kind]
    assert [item.type for item in response.output] == ["mcp_list_tools", "mcp_call", "message"]
    called: Any = response.output[1]
    assert (called.output, called.error, called.server_label) == ("hey", None, "s")
    assert turns.outputs(1) == ["hey"]
    assert all("x-request-id" in received.headers for received in turns.asked)
    stored = await mcp_client.responses.retrieve(response.id)
    assert stored.output_text == "done"


async def test_credentials_reach_their_server_and_nothing_else(
    stack_to_here: Stack, mcp_wire: Wire
) -> None:
    """X4: not the model, not the client, not the log, not the database."""
    turns = Turns(stack_to_here, say(call("echo", '{"text": "hey"}')), DONE)
    async with McpServer() as server:
        seen = await mcp_wire.create(
            model="m", tools=[declared(server.url, headers={"x-key": SECRET})]
        )
        assert SECRET in {headers.get("x-key") for headers in server.headers}

    assert seen.response["status"] == "completed"
    assert SECRET.encode() not in bytes(seen.raw) + b"".join(r.body for r in turns.asked)
    assert SECRET not in "".join(stack_to_here.said)
    rows = await stack_to_here.sql("SELECT head FROM responses WHERE id = %s", seen.response["id"])
    assert SECRET not in str(rows)


async def test_two_servers_with_one_tool_and_parallel_calls(
    stack_to_here: Stack, mcp_client: openai.AsyncOpenAI
) -> None:
    """T2, T5: not streamed; both run."""
    turns = Turns(
        stack_to_here,
        say(call("one__echo", '{"text": "1"}'), call("two__echo", '{"text": "2"}')),
        DONE,
    )
    async with McpServer() as one, McpServer() as two:
        tools: Any = [declared(one.url, "one"), declared(two.url, "two")]
        response = await mcp_client.responses.create(model="m", input="hi", tools=tools)
        assert (one.calls, two.calls) == (["echo"], ["echo"])
    assert turns.outputs(1) == ["1", "2"]
    assert response.output_text == "done"


async def test_a_client_that_leaves_behind_the_first_turn_ends_nothing(
    stack_to_here: Stack, mcp_wire: Wire
) -> None:
    """P3: also inline, where the first turn ends with its client: this one is over."""
    gate = asyncio.Event()
    last = Script(Hold(gate), replies.stream(text("done")))
    turns = Turns(stack_to_here, say(call("echo", '{"text": "hey"}')), last)
    async with McpServer() as server:
        async with mcp_wire.open(model="m", tools=[declared(server.url)]) as reading:
            await reading.until("response.mcp_call.completed")
        made = reading.events[0]["response"]["id"]
        await eventually(lambda: len(turns.asked) == 2)
        gate.set()

        async def completed() -> bool:
            return bool((await mcp_wire.get(made)).json["status"] == "completed")

        await eventually(completed)


@pytest.mark.parametrize(
    ("tool", "arguments", "error"),
    [
        ("slow", "{}", "http_error"),
        ("die", "{}", "http_error"),
        ("fail", "{}", "mcp_tool_execution_error"),
        ("echo", "{not json", "mcp_protocol_error"),
    ],
)
async def test_a_call_that_fails_is_an_output_for_the_model(
    stack_to_here: Stack, mcp_wire: Wire, tool: str, arguments: str, error: str
) -> None:
    """T2, T7: a server that hangs, dies in the middle, refuses; arguments that are no JSON."""
    turns = Turns(stack_to_here, say(call(tool, arguments)), DONE)
    async with McpServer() as server:
        seen = await mcp_wire.create(model="m", tools=[declared(server.url)])
    called = seen.response["output"][1]
    assert (seen.response["status"], called["status"]) == ("completed", "failed")
    assert called["error"]["type"] == error
    assert len(turns.outputs(1)) == 1


async def test_an_answer_of_five_megabytes_is_cut(stack_to_here: Stack, mcp_wire: Wire) -> None:
    """X5: and the model is told so."""
    turns = Turns(stack_to_here, say(call("huge", '{"size": 5000000}')), DONE)
    async with McpServer() as server:
        seen = await mcp_wire.create(model="m", tools=[declared(server.url)])
    assert seen.response["status"] == "completed"
    [told] = turns.outputs(1)
    assert len(told) < 300_000
    assert "5000000 characters" in told


async def test_an_owned_a_client_and_an_unknown_tool_in_one_turn(
    stack_to_here: Stack, mcp_wire: Wire
) -> None:
    """T3, T7: the owned is run, the others are returned; the next response goes on."""
    turns = Turns(
        stack_to_here,
        say(call("echo", '{"text": "x"}'), call("mine", "{}"), call("nobodys", "{}")),
        DONE,
    )
    async with McpServer() as server:
        tools = [declared(server.url), {"type": "function", "name": "mine"}]
        seen = await mcp_wire.create(model="m", tools=tools)
        output = seen.response["output"]
        assert [item["type"] for item in output][1:] == [
            "mcp_call",
            "function_call",
            "function_call",
        ]
        answers = [
            {"type": "function_call_output", "call_id": item["call_id"], "output": item["name"]}
            for item in output[2:]
        ]
        following = await mcp_wire.create(
            model="m", tools=tools, input=answers, previous_response_id=seen.response["id"]
        )
        assert server.calls == ["echo"]
    assert following.response["status"] == "completed"
    assert turns.outputs(1) == ["x", "mine", "nobodys"]


async def test_a_background_response_runs_tools(stack_to_here: Stack, mcp_wire: Wire) -> None:
    """T1, R2: its stream keeps all rules."""
    Turns(stack_to_here, say(call("echo", '{"text": "x"}')), DONE)
    async with McpServer() as server:
        seen = await mcp_wire.create(model="m", background=True, tools=[declared(server.url)])
    assert [item["type"] for item in seen.response["output"]] == [
        "mcp_list_tools",
        "mcp_call",
        "message",
    ]


async def test_a_killed_worker_s_calls_are_not_made_twice(
    stack_to_here: Stack, mcp_wire: Wire
) -> None:
    """P4, T2: kill -9 between a tool's result and the end of the next turn, in the background."""
    never = Script(Hold(asyncio.Event()))
    turns = Turns(stack_to_here, say(call("echo", '{"text": "once"}')), never, DONE)
    model = "killed"
    async with McpServer() as server:
        queued = await mcp_wire.create(
            model=model, background=True, stream=False, tools=[declared(server.url)]
        )
        await eventually(lambda: len(turns.asked) == 2)
        index = (await stack_to_here.running_by_worker(model)).index(1)
        old = stack_to_here.worker(index)
        os.kill(old, signal.SIGKILL)
        seen: list[Any] = []

        async def over() -> bool:
            answer = await mcp_wire.get(queued.json["id"])
            if answer.status != 200 or not answer.clean:
                return False
            seen[:] = [answer.json]
            return seen[0]["status"] not in ("queued", "in_progress")

        await eventually(over, 60)
        await stack_to_here.replaced(index, old)
        assert server.calls == ["echo"]
    [response] = seen
    assert response["status"] == "completed", response["error"]
    assert turns.outputs(2) == ["once"]
    # M9: the turn that is asked for again is asked for in the same bytes.
    assert turns.asked[2].body == turns.asked[1].body


async def test_a_server_that_is_not_there_costs_its_own_tools_only(
    stack_to_here: Stack, mcp_wire: Wire
) -> None:
    """T5: its item has the error, the run goes on."""
    Turns(stack_to_here, say(call("echo", '{"text": "x"}')), DONE)
    async with McpServer() as dead:
        gone_url = dead.url
    async with McpServer() as server:
        tools = [declared(gone_url, "gone"), declared(server.url)]
        seen = await mcp_wire.create(model="m", tools=tools)
    gone, listed, called, _ = seen.response["output"]
    assert "gone" in gone["error"]
    assert (len(listed["tools"]) > 3, called["output"]) == (True, "x")


async def test_secrets_are_not_in_what_is_stored_to_run_it_again(
    stack_to_here: Stack, mcp_wire: Wire
) -> None:
    """X4: while it runs, too."""
    model = stack_to_here.plays(say(call("slow", "{}")))
    async with (
        McpServer() as server,
        mcp_wire.open(
            model=model, tools=[declared(server.url, authorization=SECRET)], max_tool_calls=1
        ) as reading,
    ):
        await reading.until("response.mcp_call.in_progress")
        rows = await stack_to_here.sql("SELECT * FROM runs")
        assert rows
        stored = b"".join(bytes(v) for row in rows for v in row if isinstance(v, bytes))
        assert SECRET not in str(rows) + stored.decode(errors="replace")
        server.release.set()
        await reading.rest()
    assert json.dumps(reading.response).count(SECRET) == 0
