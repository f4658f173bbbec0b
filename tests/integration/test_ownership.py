"""Owned, client, upstream and provided tools through the real Envoy: one table (rules T1, T3, T4, T7)."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import openai
import pytest
import pytest_asyncio

from storage.postgres.embedded import EmbeddedPostgres
from tests.support.fix_postgres import create_database
from tests.support.fix_stack import open_session
from tests.support.mcp_server import McpServer
from tests.support.replies import call, say, text
from tests.support.scripted_model import Received, ScriptedModel
from tests.support.scripts import Script
from tests.support.stack import CLIENT_KEY, Stack, running_stack
from tests.support.upstream_calls import CODE, SEARCH, told, with_items
from tests.support.wire import Wire

DONE = say(text("done"))
MINE = {"type": "function", "name": "mine"}
WEB = {"type": "web_search"}
INTERPRETER = {"type": "code_interpreter", "container": {"type": "auto"}}
EXAMPLES = Path(__file__).parents[2] / "docs" / "examples"


@pytest_asyncio.fixture(scope="module")
async def owning_stack(
    postgres_server: EmbeddedPostgres, stage: ScriptedModel
) -> AsyncIterator[Stack]:
    """A stack whose model server has tools of its own, and whose operator has added dice."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(EXAMPLES), prepend=":")
        async with running_stack(
            stage,
            await create_database(postgres_server),
            tools={
                "upstream_types": "web_search,code_interpreter",
                "providers": "dice=dice:open_dice",
            },
            outbound={"allow_http": True, "networks": "127.0.0.0/8"},
        ) as running:
            yield running


@pytest_asyncio.fixture(scope="module")
async def owning_wire(owning_stack: Stack) -> AsyncIterator[Wire]:
    """A plain client of it."""
    async with open_session(owning_stack.url) as session:
        yield Wire(session)


@pytest_asyncio.fixture(scope="module")
async def owning_client(owning_stack: Stack) -> AsyncIterator[openai.AsyncOpenAI]:
    """The official SDK."""
    async with openai.AsyncOpenAI(
        base_url=f"{owning_stack.url}/v1", api_key=CLIENT_KEY, max_retries=0, timeout=30
    ) as sdk:
        yield sdk


def declared(url: str, label: str = "s", **fields: Any) -> dict[str, Any]:
    """Return a server's declaration."""
    given = {"server_label": label, "server_url": url, "require_approval": "never"}
    return {"type": "mcp", **given, **fields}


class Asked:
    """What the model is asked from now on, to which it answers by these scripts."""

    def __init__(self, stack: Stack, *scripts: Script) -> None:
        self._stack = stack
        self._seen = len(stack.model.requests)
        stack.model.script(*scripts)

    def __getitem__(self, turn: int) -> Any:
        requests: list[Received] = self._stack.model.requests[self._seen :]
        return requests[turn].json

    def names(self, turn: int) -> list[str]:
        """What a turn was shown."""
        return [tool.get("name", tool["type"]) for tool in self[turn]["tools"]]

    def outputs(self, turn: int) -> list[str]:
        """The outputs of tools that a turn was sent."""
        return [i["output"] for i in self[turn]["input"] if "output" in i]


async def test_a_turn_with_calls_of_every_owner(owning_stack: Stack, owning_wire: Wire) -> None:
    """T1, T3, T7, M2: an owned, a provided, a client's and an unknown call beside a server's own item."""
    mixed = with_items(
        call("echo", '{"text": "x"}'),
        call("roll", '{"dice": 1}'),
        call("mine", "{}"),
        call("nobodys", "{}"),
        before=told(SEARCH, ".in_progress", ".searching", ".completed"),
        output=[SEARCH],
    )
    asked = Asked(owning_stack, Script(mixed), DONE)
    async with McpServer() as server:
        tools = [declared(server.url), {"type": "dice", "sides": 2}, MINE, WEB]
        seen = await owning_wire.create(model="m", tools=tools)
        output = seen.response["output"][2:]
        assert [item["type"] for item in output] == [
            "web_search_call",
            "mcp_call",
            "mcp_call",
            "function_call",
            "function_call",
        ]
        assert [i.get("server_label") for i in output] == [None, "s", "dice", None, None]
        assert WEB in asked[0]["tools"]
        stored = await owning_wire.get(seen.response["id"])
        assert stored.json == seen.response

        answers = [
            {"type": "function_call_output", "call_id": item["call_id"], "output": item["name"]}
            for item in output[3:]
        ]
        following = await owning_wire.create(
            model="m", tools=tools, input=answers, previous_response_id=seen.response["id"]
        )
        assert server.calls == ["echo"]

    assert following.response["status"] == "completed"
    echoed, rolled, *clients = asked.outputs(1)
    assert (echoed, clients) == ("x", ["mine", "nobodys"])
    assert json.loads(rolled)[0] in (1, 2)


async def test_the_sdk_accepts_a_stream_with_items_of_the_model_server(
    owning_stack: Stack, owning_client: openai.AsyncOpenAI
) -> None:
    """R14, M4: and the next response is sent what became of them."""
    said = with_items(
        text("done"),
        before=[*told(SEARCH, ".searching"), *told(CODE, ".interpreting", ".completed", index=1)],
        output=[SEARCH, CODE],
    )
    asked = Asked(owning_stack, Script(said), DONE)
    tools: Any = [WEB, INTERPRETER]
    async with owning_client.responses.stream(model="m", input="hi", tools=tools) as stream:
        kinds = [event.type async for event in stream]
        response = await stream.get_final_response()

    assert [item.type for item in response.output] == [
        "web_search_call",
        "code_interpreter_call",
        "message",
    ]
    assert "response.code_interpreter_call.interpreting" in kinds
    await owning_client.responses.create(
        model="m", input="more", previous_response_id=response.id, tools=tools
    )
    assert asked.outputs(1) == ["42"]


async def test_choices_of_servers_hold(owning_stack: Stack, owning_wire: Wire) -> None:
    """T4: forced for the first turn; what is not allowed is not called, whatever the model does."""
    asked = Asked(
        owning_stack,
        say(call("echo", '{"text": "x"}')),
        DONE,
        say(call("echo", '{"text": "x"}')),
        DONE,
    )
    only = {"type": "mcp", "server_label": "s", "name": "fail"}
    async with McpServer() as server:
        tools = [declared(server.url), MINE]
        forced = {"type": "mcp", "server_label": "s", "name": "echo"}
        seen = await owning_wire.create(model="m", tools=tools, tool_choice=forced)
        assert seen.response["tool_choice"] == forced
        allowed = {"type": "allowed_tools", "mode": "auto", "tools": [only]}
        kept = await owning_wire.create(model="m", tools=tools, tool_choice=allowed)
        assert server.calls == ["echo"]

    assert asked[0]["tool_choice"] == {"type": "function", "name": "echo"}
    assert "tool_choice" not in asked[1]
    assert asked.names(2) == ["fail"]
    assert "does not allow" in asked.outputs(3)[0]
    assert kept.response["output"][1]["status"] == "failed"


async def test_what_nobody_runs_is_refused(owning_wire: Wire) -> None:
    """H1: a type that is in no setting, and credentials for the model server."""
    for tool, param in (
        ({"type": "file_search", "vector_store_ids": ["vs"]}, "tools[0].type"),
        ({**WEB, "authorization": "secret"}, "tools[0].authorization"),
        ({"type": "dice", "sides": 1}, "tools[0]"),
    ):
        seen = await owning_wire.create(model="m", tools=[tool])
        assert (seen.status, seen.error["param"]) == (400, param)
