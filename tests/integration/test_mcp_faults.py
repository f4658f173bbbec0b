"""MCP servers that are large, slow or broken, many of them, and callers that leave (rules T2, T5, X5, P3)."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Any

import openai
import pytest
import pytest_asyncio

from storage.postgres.embedded import EmbeddedPostgres
from tests.support.fix_postgres import create_database
from tests.support.fix_stack import open_session
from tests.support.mcp_server import PIXEL, Gauge, McpServer, paged_app, silent_server
from tests.support.mcp_turns import declared
from tests.support.replies import call, say, text
from tests.support.scripted_model import ScriptedModel
from tests.support.scripts import ByOutputs
from tests.support.stack import CLIENT_KEY, Stack, eventually, running_stack
from tests.support.wire import Wire

AT_A_TIME, OF_ONE_RESPONSE = 12, 4
PATIENCE = 60.0
TRANSPORTS = pytest.mark.parametrize("transport", ["http", "sse"])


@pytest_asyncio.fixture(scope="module")
async def bounded(postgres_server: EmbeddedPostgres, stage: ScriptedModel) -> AsyncIterator[Stack]:
    """One worker that makes a dozen calls at a time, and four for one response."""
    async with running_stack(
        stage,
        await create_database(postgres_server),
        sidecar={"workers": 1, "open_after_seconds": 1.0, "heartbeat_seconds": 0.2},
        tools={
            "list_seconds": 5.0,
            "call_seconds": 30.0,
            "calls": AT_A_TIME,
            "response_calls": OF_ONE_RESPONSE,
        },
        outbound={"allow_http": True, "networks": "127.0.0.0/8"},
    ) as running:
        yield running


@pytest_asyncio.fixture(scope="module")
async def to_bounded(bounded: Stack) -> AsyncIterator[Wire]:
    """A plain client of it."""
    async with open_session(bounded.url) as session:
        yield Wire(session)


@pytest_asyncio.fixture(scope="module")
async def sdk(bounded: Stack) -> AsyncIterator[openai.AsyncOpenAI]:
    """The official SDK."""
    async with openai.AsyncOpenAI(
        base_url=f"{bounded.url}/v1", api_key=CLIENT_KEY, max_retries=0, timeout=PATIENCE
    ) as client:
        yield client


def calls(stack: Stack, *names: str, arguments: str = '{"text": "x"}') -> str:
    """Return a model that calls these tools in one turn, and is done."""
    first = say(*(call(name, arguments) for name in names))
    return stack.plays(ByOutputs({0: first, len(names): say(text("done"))}))


def outputs(stack: Stack, model: str) -> list[Any]:
    """Return what the model was told of its calls, last."""
    items = stack.asked(model)[-1].json["input"]
    return [item["output"] for item in items if item.get("type") == "function_call_output"]


async def test_three_hundred_tools_over_pages(bounded: Stack, sdk: openai.AsyncOpenAI) -> None:
    """T5: the model is shown all of them, and can call the last; `responses.stream()` takes the list."""
    model = calls(bounded, "tool_2_99")
    async with McpServer(app=paged_app([("1", 100), ("2", 100), (None, 100)])) as server:
        tools: Any = [declared(server.url)]
        async with sdk.responses.stream(model=model, input="hi", tools=tools) as stream:
            kinds = [event.type async for event in stream]
            response: Any = await stream.get_final_response()

    listed, called, _ = response.output
    assert kinds.count("response.mcp_list_tools.completed") == 1
    assert (len(listed.tools), called.output) == (300, "tool_2_99")
    first, second = (received.json for received in bounded.asked(model))
    assert len({tool["name"] for tool in first["tools"]}) == 300
    assert second["tools"] == first["tools"]
    assert [item.get("type") for item in second["input"]] == [
        None,
        "function_call",
        "function_call_output",
    ]


async def test_a_list_that_repeats_a_cursor_is_an_error_of_its_item(
    bounded: Stack, sdk: openai.AsyncOpenAI
) -> None:
    """T5: and the other server's tools can be called."""
    model = calls(bounded, "echo")
    async with McpServer(app=paged_app([("1", 1), ("1", 1)])) as endless, McpServer() as server:
        tools: Any = [declared(endless.url, "endless"), declared(server.url)]
        response: Any = await sdk.responses.create(model=model, input="hi", tools=tools)

    broken, listed, called, _ = response.output
    assert "same cursor twice" in broken.error
    assert broken.tools == []
    assert (listed.error, called.output, response.output_text) == (None, "x", "done")


async def test_a_server_that_hangs_when_it_is_listed_costs_its_own_tools(
    bounded: Stack, to_bounded: Wire
) -> None:
    """T5, R13, R16: the stream opens meanwhile, and is not silent; the other server's tools are called."""
    model = calls(bounded, "echo")
    async with silent_server() as (url, sent), McpServer() as server:
        tools = [declared(url, "silent"), declared(server.url)]
        async with to_bounded.open(model=model, tools=tools) as reading:
            await reading.until("response.in_progress")
            await reading.until_comments(2)
            assert bounded.asked(model) == []
            await reading.rest()
        assert sent

    silent, _, called, _ = reading.response["output"]
    assert "No answer came within 5 seconds" in silent["error"]
    assert called["output"] == "x"


@TRANSPORTS
async def test_an_image_reaches_the_model_and_its_text_the_client(
    bounded: Stack, sdk: openai.AsyncOpenAI, transport: Any
) -> None:
    """T2: as `input_image`; the item's output is text, as the API has it, now and in the next response."""
    model = calls(bounded, "picture")
    async with McpServer(transport) as server:
        tools: Any = [declared(server.url)]
        async with sdk.responses.stream(model=model, input="hi", tools=tools) as stream:
            response: Any = await stream.get_final_response()
    assert response.output[1].output == "a pixel"
    assert PIXEL not in response.model_dump_json()
    told = [
        {"type": "input_text", "text": "a pixel"},
        {"type": "input_image", "image_url": f"data:image/png;base64,{PIXEL}", "detail": "auto"},
    ]
    assert outputs(bounded, model) == [told]

    after = bounded.plays(say(text("ok")))
    await sdk.responses.create(model=after, input="and?", previous_response_id=response.id)
    assert outputs(bounded, after) == [told]


@TRANSPORTS
async def test_structure_is_told_as_json(bounded: Stack, to_bounded: Wire, transport: Any) -> None:
    """T2: where a tool has text for it, and where it has none."""
    model = bounded.plays(
        ByOutputs({
            0: say(call("add", '{"a": 1, "b": 2}'), call("data", "{}")),
            2: say(text("done")),
        })
    )  # fmt: skip
    async with McpServer(transport) as server:
        seen = await to_bounded.create(model=model, tools=[declared(server.url)])

    added, data = outputs(bounded, model)
    assert json.loads(added) == {"sum": 3}
    assert json.loads(data) == {"rows": [1, 2]}
    assert [item["output"] for item in seen.response["output"][1:3]] == [added, data]


async def test_over_the_older_transport_a_call_that_fails_costs_itself_only(
    bounded: Stack, sdk: openai.AsyncOpenAI
) -> None:
    """T2, X5: five megabytes, an error, a server that dies, and then one that is there again."""
    turns = [
        ("huge", '{"size": 5000000}'),
        ("fail", "{}"),
        ("die", "{}"),
        ("echo", '{"text": "x"}'),
    ]
    scripts = {number: say(call(*turn)) for number, turn in enumerate(turns)}
    model = bounded.plays(ByOutputs({**scripts, len(turns): say(text("done"))}))
    async with McpServer("sse") as server:
        tools: Any = [declared(server.url)]
        async with sdk.responses.stream(model=model, input="hi", tools=tools) as stream:
            numbers = [event.sequence_number async for event in stream]
            response: Any = await stream.get_final_response()
        assert server.calls == ["huge", "fail", "die", "echo"]

    assert numbers == list(range(len(numbers)))
    huge, failed, died, echoed = (item.model_dump() for item in response.output[1:5])
    assert "longer than" in huge["error"]["message"]
    assert failed["error"]["type"] == "mcp_tool_execution_error"
    assert (died["error"]["type"], died["error"]["code"]) == ("http_error", 502)
    assert (echoed["status"], echoed["output"]) == ("completed", "x")
    assert response.output_text == "done"


async def test_a_server_that_dies_costs_none_of_another_s_calls(
    bounded: Stack, to_bounded: Wire
) -> None:
    """T2: side by side in one turn; the items close in the order in which the calls end."""
    model = calls(bounded, "one__die", "two__slow", "two__echo")
    async with McpServer() as one, McpServer() as two:
        tools = [declared(one.url, "one"), declared(two.url, "two")]
        async with to_bounded.open(model=model, tools=tools) as reading:
            await reading.until("response.mcp_call.failed")
            await reading.until("response.mcp_call.completed")
            two.release.set()
            await reading.rest()

    died, slow, echoed = reading.response["output"][2:5]
    assert (died["status"], slow["output"], echoed["output"]) == ("failed", "done", "x")
    assert [bool(said) for said in outputs(bounded, model)] == [True] * 3
    assert outputs(bounded, model)[1:] == ["done", "x"]


async def test_arguments_of_owned_calls_are_in_their_own_events_and_nowhere_else(
    bounded: Stack, to_bounded: Wire
) -> None:
    """T1: beside a call of the client's in the same turn; no log line has them either."""
    owned = "argument-of-the-owned"
    given = json.dumps({"text": owned})
    model = bounded.plays(say(call("echo", *given), call("mine", '{"a":', " 1}")))
    async with McpServer() as server:
        tools = [declared(server.url), {"type": "function", "name": "mine"}]
        seen = await to_bounded.create(model=model, tools=tools)

    assert [item["type"] for item in seen.response["output"]][1:] == ["mcp_call", "function_call"]
    deltas = {"response.mcp_call_arguments.delta": "", "response.function_call_arguments.delta": ""}
    for event in seen.events:
        if event["type"] in deltas:
            deltas[event["type"]] += event["delta"]
    assert list(deltas.values()) == [given, '{"a": 1}']
    told = {event["type"] for event in seen.events if owned in json.dumps(event)}
    assert told == {
        "response.mcp_call_arguments.done",
        "response.output_item.done",
        "response.completed",
    }
    assert not any(owned in line for line in bounded.said)


async def test_twenty_servers_in_one_request(bounded: Stack, to_bounded: Wire) -> None:
    """T2, T5, X5: listed at once, called four at a time; each call's outcome in its place."""
    gauge = Gauge()
    labels = [f"s{number}" for number in range(20)]
    model = calls(bounded, *(f"{label}__slow" for label in labels))
    async with AsyncExitStack() as running:
        servers = [await running.enter_async_context(McpServer(gauge=gauge)) for _ in labels]
        tools = [declared(one.url, label) for one, label in zip(servers, labels, strict=True)]
        async with to_bounded.open(model=model, tools=tools) as reading:
            await eventually(lambda: gauge.now == OF_ONE_RESPONSE, PATIENCE)
            # Another response is not kept waiting by this one.
            other = calls(bounded, "echo")
            async with McpServer() as one_more:
                asked = await to_bounded.create(model=other, tools=[declared(one_more.url)])
            assert asked.response["status"] == "completed"
            for server in servers:
                server.release.set()
            await reading.rest(PATIENCE)
        assert [server.calls for server in servers] == [["slow"]] * 20
    assert (gauge.most, gauge.now) == (OF_ONE_RESPONSE, 0)
    called = [item for item in reading.response["output"] if item["type"] == "mcp_call"]
    assert [item["server_label"] for item in called] == labels
    assert {item["output"] for item in called} == {"done"}


async def test_fifty_responses_with_tools_at_once(bounded: Stack, to_bounded: Wire) -> None:
    """T2, X5: a worker makes a dozen calls at a time, and all hundred come to their end."""
    gauge = Gauge()
    model = calls(bounded, "slow", "slow")
    async with McpServer(gauge=gauge) as server, asyncio.TaskGroup() as group:
        asking = [
            group.create_task(
                to_bounded.create(PATIENCE, model=model, tools=[declared(server.url)])
            )
            for _ in range(50)
        ]
        await eventually(lambda: gauge.now == AT_A_TIME, PATIENCE)
        await eventually(lambda: len(bounded.asked(model)) == 50, PATIENCE)
        server.release.set()
        made = [(await one).response for one in asking]
        assert server.calls == ["slow"] * 100
    assert (gauge.most, gauge.now) == (AT_A_TIME, 0)
    assert {response["status"] for response in made} == {"completed"}
    assert len(bounded.asked(model)) == 100
    called = [
        item["output"] for one in made for item in one["output"] if item["type"] == "mcp_call"
    ]
    assert called == ["done"] * 100


@TRANSPORTS
@pytest.mark.parametrize("background", [False, True], ids=["foreground", "background"])
async def test_a_cancel_ends_a_call_that_hangs(
    bounded: Stack, to_bounded: Wire, transport: Any, background: bool
) -> None:
    """T2, R1: at the server, too; the call stays in the output as incomplete, the model is not asked on."""
    model = calls(bounded, "slow")
    async with McpServer(transport) as server:
        tools = [declared(server.url)]
        async with to_bounded.open(model=model, background=background, tools=tools) as reading:
            created = await reading.until("response.created")
            await server.under_way(1)
            path = f"/v1/responses/{created['response']['id']}/cancel"
            cancelled = await to_bounded.ask("POST", path)
            async with asyncio.timeout(PATIENCE):
                await server.given_up.wait()
            await reading.rest()

    assert (cancelled.status, cancelled.json["status"]) == (200, "cancelled")
    assert reading.response["status"] == "cancelled"
    assert [item.get("status") for item in reading.response["output"]][1:] == ["incomplete"]
    assert len(bounded.asked(model)) == 1


@pytest.mark.parametrize("policy", ["continue", "cancel"])
async def test_a_client_that_leaves_while_a_tool_runs(
    bounded: Stack, to_bounded: Wire, policy: str
) -> None:
    """P3: by policy the response runs on to its end, or the call is given up at once."""
    model = calls(bounded, "slow")
    async with McpServer() as server:
        headers = {"holdfast-on-disconnect": policy}
        async with to_bounded.open(headers, model=model, tools=[declared(server.url)]) as reading:
            await server.under_way(1)
            await reading.until("response.mcp_call.in_progress")
        response_id = reading.events[0]["response"]["id"]
        if policy == "continue":
            # It still runs, and nobody took the call back.
            assert (await to_bounded.get(response_id)).json["status"] == "in_progress"
            assert not server.given_up.is_set()
            server.release.set()
        else:
            async with asyncio.timeout(PATIENCE):
                await server.given_up.wait()

        async def over() -> bool:
            return bool((await to_bounded.get(response_id)).json["status"] != "in_progress")

        await eventually(over, PATIENCE)
        assert server.calls == ["slow"]
    stored = (await to_bounded.get(response_id)).json
    if policy == "continue":
        assert (stored["status"], stored["output"][1]["output"]) == ("completed", "done")
        assert len(bounded.asked(model)) == 2
    else:
        assert stored["status"] == "incomplete"
        assert stored["incomplete_details"] == {"reason": "client_disconnected"}
        assert stored["output"][1]["status"] == "incomplete"
        assert len(bounded.asked(model)) == 1


async def test_a_call_for_a_client_that_left_an_unstored_response_is_given_up(
    bounded: Stack, to_bounded: Wire
) -> None:
    """P3, P5: nobody can read what would come of it."""
    model = calls(bounded, "slow")
    async with McpServer() as server:
        tools = [declared(server.url)]
        asking = asyncio.create_task(
            to_bounded.create(model=model, stream=False, store=False, tools=tools)
        )
        await server.under_way(1)
        asking.cancel()
        await asyncio.gather(asking, return_exceptions=True)
        async with asyncio.timeout(PATIENCE):
            await server.given_up.wait()
    assert len(bounded.asked(model)) == 1
