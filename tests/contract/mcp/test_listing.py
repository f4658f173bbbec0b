"""Lists of tools of real MCP servers: pages, caches, filters (T4, T5)."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from mcp.server.lowlevel import Server
from mcp_types import ListToolsResult, Tool, ToolAnnotations

from engine.errors import ToolsUnavailable
from engine.ports import ToolProvider
from extproc.mcp.target import McpLimits
from tests.support.mcp_rig import DEADLINE, call, mcp_rig
from tests.support.mcp_server import McpServer, paged_app, silent_server

THREE_PAGES = [("1", 100), ("2", 100), (None, 100)]


async def names(provider: ToolProvider) -> list[str]:
    return [tool.name for tool in await provider.definitions(timeout=DEADLINE)]


async def test_a_definition_has_what_the_model_and_the_client_are_shown() -> None:
    """T5: name, description, schema, annotations."""
    async with McpServer() as server, mcp_rig() as rig:
        tools = await rig.provider(server.url).definitions(timeout=DEADLINE)

    echo = next(tool for tool in tools if tool.name == "echo")
    assert echo.description == "Say it again."
    assert json.loads(echo.parameters)["properties"]["text"] == {"title": "Text", "type": "string"}
    assert json.loads(echo.annotations or b"{}") == {"readOnlyHint": True}
    assert [tool.name for tool in tools if tool.read_only] == ["echo"]


async def test_all_pages_are_read() -> None:
    """T5: 300 tools."""
    async with McpServer(app=paged_app(THREE_PAGES)) as server, mcp_rig() as rig:
        found = await names(rig.provider(server.url))

        assert len(set(found)) == 300
        assert (found[0], found[-1]) == ("tool_0_0", "tool_2_99")
        assert (await call(rig.provider(server.url), "tool_2_99")).text == "tool_2_99"


@pytest.mark.parametrize(
    ("pages", "limits", "why"),
    [
        ([("1", 1), ("1", 1)], McpLimits(), "same cursor twice"),
        ([("1", 1), ("0", 1)], McpLimits(), "same cursor twice"),
        (THREE_PAGES, McpLimits(pages=2), "more than 2 pages"),
        (THREE_PAGES, McpLimits(tools=299), "more than 299 tools"),
        (THREE_PAGES, McpLimits(list_bytes=1000), "more than 1000 bytes"),
    ],
)
async def test_a_list_that_does_not_end_is_an_error(
    pages: list[tuple[str | None, int]], limits: McpLimits, why: str
) -> None:
    """T5: a repeated cursor is an error; X5: and everything is bounded."""
    async with McpServer(app=paged_app(pages)) as server, mcp_rig(limits) as rig:
        with pytest.raises(ToolsUnavailable, match=why) as unavailable:
            await names(rig.provider(server.url))

    assert unavailable.value.status == 424
    assert "'s'" in unavailable.value.message, "names the server by its label"


@pytest.mark.parametrize(
    "said",
    [
        {"name": "x" * 2000},
        {"description": "x" * 2000},
        {"input_schema": {"type": "object", "title": "x" * 2000}},
        {"annotations": ToolAnnotations(title="x" * 2000)},
    ],
    ids=lambda said: next(iter(said)),
)
async def test_all_that_is_said_of_a_tool_is_bounded(said: dict[str, Any]) -> None:
    """X5: it is kept, shown and stored."""

    async def list_tools(*_: object) -> ListToolsResult:
        return ListToolsResult(
            tools=[Tool(**{"name": "t", "input_schema": {"type": "object"}, **said})]
        )

    app = Server("wordy", on_list_tools=list_tools).streamable_http_app()
    async with McpServer(app=app) as server, mcp_rig(McpLimits(list_bytes=1000)) as rig:
        with pytest.raises(ToolsUnavailable, match="more than 1000 bytes"):
            await names(rig.provider(server.url))


async def test_a_list_is_asked_for_once_until_it_is_old() -> None:
    """T5: cached per server and credentials."""
    async with McpServer() as server, mcp_rig(McpLimits(tools_ttl=60)) as rig:
        first = await names(rig.provider(server.url))
        asked = len(server.requests)
        assert await names(rig.provider(server.url)) == first
        assert len(server.requests) == asked

        await names(rig.provider(server.url, authorization="other"))
        assert len(server.requests) > asked

    async with McpServer() as server, mcp_rig(McpLimits(tools_ttl=0)) as rig:
        await names(rig.provider(server.url))
        asked = len(server.requests)
        await names(rig.provider(server.url))
        assert len(server.requests) == asked + 1


async def test_runs_that_start_together_ask_once() -> None:
    """T5."""
    async with McpServer() as server, mcp_rig() as rig:
        await asyncio.gather(*(names(rig.provider(server.url)) for _ in range(10)))
        assert len(server.requests) == 2, "the handshake and the list"


async def test_a_server_that_says_its_tools_changed_is_asked_again() -> None:
    """T5."""
    async with McpServer(old=True) as server, mcp_rig() as rig:
        provider = rig.provider(server.url)
        assert "grown" not in await names(provider)
        await call(provider, "grow")
        assert "grown" in await names(provider)


@pytest.mark.parametrize(
    ("allowed", "expected"),
    [
        (["add", "no_such_tool"], ["add"]),
        ({"read_only": True}, ["echo"]),
        ({"tool_names": ["add"], "read_only": True}, []),
    ],
)
async def test_only_allowed_tools_are_told(allowed: object, expected: list[str]) -> None:
    """T4: the others do not exist for this run."""
    async with McpServer() as server, mcp_rig() as rig:
        assert await names(rig.provider(server.url, allowed_tools=allowed)) == expected


async def test_a_server_that_is_away_is_an_error_that_names_it() -> None:
    """T5: the failure becomes an item."""
    async with McpServer() as server:
        url = server.url
    async with mcp_rig() as rig:
        with pytest.raises(ToolsUnavailable, match=r"'s'.* could not be reached"):
            await names(rig.provider(url))


async def test_a_server_that_hangs_is_given_up_and_tried_again_later() -> None:
    """T5: within the deadline."""
    async with silent_server() as (url, sent), mcp_rig() as rig:
        for _ in range(2):
            with pytest.raises(ToolsUnavailable, match=r"within 0\.5 seconds"):
                await rig.provider(url).definitions(timeout=0.5)
        assert len(sent) == 2


async def test_credentials_that_are_refused_are_named_as_the_reason() -> None:
    """X4: without repeating them."""
    async with McpServer(refuses="wrong") as server, mcp_rig() as rig:
        with pytest.raises(ToolsUnavailable, match=r"refused the credentials \(HTTP 401\)") as no:
            await names(rig.provider(server.url, authorization="wrong"))
        assert "wrong" not in no.value.message
        assert await names(rig.provider(server.url, authorization="right"))
