"""Corners of the protocol, by servers of the SDK that were written for them."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any

import pytest
from mcp import MCPError
from mcp.server.lowlevel import Server
from mcp_types import (
    CallToolRequestParams,
    CallToolResult,
    InputRequiredResult,
    ListToolsResult,
    TextContent,
    Tool,
)
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from engine.errors import ToolsUnavailable
from extproc.mcp.target import McpLimits
from tests.support.mcp_rig import DEADLINE, call, mcp_rig
from tests.support.mcp_server import McpServer

SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {"region": {"type": "string", "x-mcp-header": "Region"}},
}
# A pattern on which a search takes longer than anybody waits, and a schema that no answer meets.
TRAP = {"type": "object", "properties": {"a": {"type": "string", "pattern": "^(a+)+$"}}}


def one_tool(answer: Callable[[CallToolRequestParams], Any]) -> Server[Any]:
    """Return a server with the tool `t`, which wants its region as a header too."""

    async def list_tools(_: object, _params: object) -> ListToolsResult:
        return ListToolsResult(tools=[Tool(name="t", input_schema=SCHEMA, output_schema=TRAP)])

    async def call_tool(_: object, params: CallToolRequestParams) -> Any:
        return answer(params)

    return Server(
        "one",
        on_list_tools=list_tools,
        on_call_tool=call_tool,
        get_tool_input_schema=lambda _: SCHEMA,
    )


def said(text: str) -> CallToolResult:
    return CallToolResult(content=[TextContent(text=text)])


async def test_an_argument_that_is_wanted_as_a_header_is_sent_as_one() -> None:
    """T5: also where the list of tools was not read over this connection."""
    app = one_tool(lambda params: said(str(params.arguments))).streamable_http_app()
    async with McpServer(app=app) as server, mcp_rig() as rig:
        outcome = await call(rig.provider(server.url), "t", b'{"region":"eu"}')

        assert outcome.text == "{'region': 'eu'}"
        assert server.headers[-1]["mcp-param-region"] == "eu"


async def test_a_tool_that_asks_for_input_fails() -> None:
    """T2: nobody is there to be asked."""
    app = one_tool(lambda _: InputRequiredResult(request_state="x")).streamable_http_app()
    async with McpServer(app=app) as server, mcp_rig() as rig:
        outcome = await call(rig.provider(server.url), "t")

    assert outcome.failed
    assert "asks for input" in outcome.text


async def test_an_answer_is_not_held_against_the_servers_schema() -> None:
    """X5: whose patterns can keep a worker busy for ever."""
    answer = CallToolResult(content=[], structured_content={"a": "a" * 64 + "!"})
    app = one_tool(lambda _: answer).streamable_http_app()
    async with McpServer(app=app) as server, mcp_rig() as rig:
        outcome = await call(rig.provider(server.url), "t")
    assert not outcome.failed


@pytest.mark.parametrize(
    ("code", "data"), [(-32602, None), (-32098, None), (-32098, {"http_status": "x"})]
)
async def test_an_error_of_the_protocol_keeps_its_code(code: int, data: object) -> None:
    """T2: also one that looks like ours."""

    def refuse(_: object) -> CallToolResult:
        raise MCPError(code, "not like this", data)

    app = one_tool(refuse).streamable_http_app()
    async with McpServer(app=app) as server, mcp_rig() as rig:
        outcome = await call(rig.provider(server.url), "t")

    assert json.loads(outcome.error or b"") == {
        "type": "mcp_protocol_error",
        "code": code,
        "message": "not like this",
    }


@pytest.mark.parametrize("code", [7, -32000, -32098])
async def test_an_error_that_is_long_is_cut_like_an_answer(code: int) -> None:
    """X5: of a call and of a list."""
    words = "so " * 1_000_000

    def refuse(*_: object) -> Any:
        raise MCPError(code, words)

    limits = McpLimits(connect=5, output_text=1000)
    app = one_tool(refuse).streamable_http_app()
    async with McpServer(app=app) as server, mcp_rig(limits) as rig:
        outcome = await call(rig.provider(server.url), "t")
    assert len(outcome.text) < 1200
    assert len(outcome.error or b"") < 1300
    assert "cut: the tool answered with 30000" in outcome.text

    app = Server("none", on_list_tools=refuse).streamable_http_app()
    async with McpServer(app=app) as server, mcp_rig(limits) as rig:
        with pytest.raises(ToolsUnavailable) as unlisted:
            await rig.provider(server.url).definitions(timeout=DEADLINE)
    assert words[:900] in unlisted.value.message
    assert len(unlisted.value.message) < 1300


async def test_a_refused_handshake_is_cut_like_an_answer() -> None:
    """X5."""
    error = {"code": -32000, "message": "so " * 1_000_000}

    async def refuse(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            return
        asked = json.loads((await receive())["body"])
        answer = {"jsonrpc": "2.0", "id": asked.get("id"), "error": error}
        headers = [(b"content-type", b"application/json")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": json.dumps(answer).encode()})

    limits = McpLimits(connect=5, output_text=1000)
    async with McpServer(app=refuse) as server, mcp_rig(limits) as rig:
        outcome = await call(rig.provider(server.url), "t")
    assert "refused the handshake: so so" in outcome.text
    assert len(outcome.text) < 1200


def spinning(app: ASGIApp, *, calls: bool) -> ASGIApp:
    """Return a server that ends each event stream at once and wants it opened again at once.

    `calls`: the streams of calls too, which never have an answer then.
    """

    async def spin(scope: Scope, receive: Receive, send: Send) -> None:
        taken: list[Message] = []

        async def given() -> Message:
            return taken.pop() if taken else await receive()

        if scope.get("method") == "POST":
            taken.append(await receive())
        called = calls and any(b'"tools/call"' in message["body"] for message in taken)
        if scope.get("method") != "GET" and not called:
            await app(scope, given, send)
            return
        headers = [(b"content-type", b"text/event-stream")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": b"id: 1\nretry: 0\ndata: \n\n"})

    return spin


async def test_a_server_that_ends_its_streams_is_not_asked_again_without_end() -> None:
    """X5: where no call is under way; calls are answered meanwhile."""
    app = spinning(one_tool(lambda _: said("fine")).streamable_http_app(), calls=False)
    limits = McpLimits(connect=5, streams=7, stream_pause=3600)
    async with McpServer(app=app, old=True) as server, mcp_rig(limits) as rig:
        provider = rig.provider(server.url)
        await call(provider, "t")
        await server.asked("GET", 7)
        for _ in range(20):
            assert (await call(provider, "t")).text == "fine"
        assert server.requests.count("GET") == 7


async def test_a_call_that_is_never_answered_does_not_ask_without_end() -> None:
    """X5: it waits for its deadline, and others are answered meanwhile."""
    app = spinning(one_tool(lambda _: said("fine")).streamable_http_app(), calls=True)
    limits = McpLimits(connect=5, streams=7, stream_pause=3600)
    async with McpServer(app=app) as server, mcp_rig(limits) as rig:
        waiting = asyncio.create_task(call(rig.provider(server.url), "t", timeout=60))
        await server.asked("GET", 7)
        for number in range(5):
            other = rig.provider(server.url, authorization=f"other {number}")
            assert [tool.name for tool in await other.definitions(timeout=DEADLINE)] == ["t"]
        assert server.requests.count("GET") == 7
        assert not waiting.done()
        waiting.cancel()
        await asyncio.wait({waiting}, timeout=DEADLINE)
        assert waiting.cancelled()


@pytest.mark.parametrize("transport", ["http", "sse"])
async def test_a_status_of_a_gateway_before_the_server_is_the_error(transport: Any) -> None:
    """T2: over the older transport too, where it ends the connection."""
    async with McpServer(transport) as server, mcp_rig() as rig:
        provider = rig.provider(server.url)
        await call(provider, "echo", b'{"text":"first"}')
        server.status = 503
        outcome = await call(provider, "echo", b'{"text":"second"}')
        server.status = 0

        assert outcome.failed
        assert "HTTP 503" in outcome.text
        assert (await call(provider, "echo", b'{"text":"third"}')).text == "third"


async def test_a_server_that_is_none_is_an_error() -> None:
    """T2: a web page, say."""

    async def page(scope: Any, _receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            headers = [(b"content-type", b"text/html")]
            await send({"type": "http.response.start", "status": 200, "headers": headers})
            await send({"type": "http.response.body", "body": b"<html>"})

    async with McpServer(app=page) as server, mcp_rig() as rig:
        outcome = await call(rig.provider(server.url), "t")
    assert "refused the handshake" in outcome.text


async def test_a_server_that_answers_nonsense_is_an_error() -> None:
    """T2: well-formed messages that are not what the protocol prescribes."""

    async def nonsense(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            return
        asked = json.loads((await receive())["body"])
        answer = {"jsonrpc": "2.0", "id": asked.get("id"), "result": {"tools": 1}}
        headers = [(b"content-type", b"application/json")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": json.dumps(answer).encode()})

    async with McpServer(app=nonsense) as server, mcp_rig() as rig:
        outcome = await call(rig.provider(server.url), "t")
    assert "does not follow the protocol" in outcome.text


async def test_an_answer_that_is_no_result_is_an_error() -> None:
    """T2: of the one call."""
    app = one_tool(lambda _: said("fine")).streamable_http_app()

    async def spoilt(scope: Any, receive: Any, send: Any) -> None:
        async def spoil(message: Any) -> None:
            if "body" in message:
                message["body"] = message["body"].replace(b'"text":"fine"', b'"text": 12345')
            await send(message)

        await app(scope, receive, spoil)

    async with McpServer(app=spoilt) as server, mcp_rig() as rig:
        outcome = await call(rig.provider(server.url), "t")
    assert outcome.failed
    assert "not what the protocol prescribes" in outcome.text


@pytest.mark.parametrize("transport", ["http", "json", "sse"])
async def test_an_answer_that_is_no_text_is_an_error_in_our_words(transport: Any) -> None:
    """T2: half a character; what the SDK repeats of the answer is for nobody."""
    async with McpServer(transport, spoils=(b"XXXXXX", b"\\ud800")) as server, mcp_rig() as rig:
        provider = rig.provider(server.url)
        outcome = await call(provider, "echo", b'{"text":"XXXXXX"}')
        assert json.loads(outcome.error or b"") == {
            "type": "http_error",
            "code": 502,
            "message": "The MCP server's answer was not taken: it is no message of the protocol.",
        }
        assert (await call(provider, "echo", b'{"text":"next"}')).text == "next"
