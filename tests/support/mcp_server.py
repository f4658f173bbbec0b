"""Real MCP servers of the SDK, on a port of 127.0.0.1, with tools that behave and tools that do not."""

from __future__ import annotations

import asyncio
import base64
import contextlib
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from typing import Any, Literal, Self

import uvicorn
from mcp.server.lowlevel import Server
from mcp.server.mcpserver import Context, MCPServer
from mcp.server.mcpserver.exceptions import ToolError
from mcp_types import (
    CallToolRequestParams,
    CallToolResult,
    ContentBlock,
    ImageContent,
    ListToolsResult,
    PaginatedRequestParams,
    TextContent,
    Tool,
    ToolAnnotations,
)
from starlette.types import ASGIApp, Receive, Scope, Send

PIXEL = base64.b64encode(b"\x89PNG\r\n\x1a\n-not-really").decode()
Transport = Literal["http", "json", "sse"]


class Gauge:
    """How many calls of `slow` run, over several servers, and the most that ran at a time."""

    def __init__(self) -> None:
        self.now = 0
        self.most = 0

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        """Count a call while it runs."""
        self.now += 1
        self.most = max(self.most, self.now)
        try:
            yield
        finally:
            self.now -= 1


class McpServer:
    """Tools over one transport: streamable HTTP (answers as events or as JSON), or the older SSE.

    `old`: knows nothing of the stateless protocol, so that clients log in. `calls` are the names of the
    tools in the order in which they were started; `requests` are the methods of the HTTP requests, `headers`
    and `bodies` what came with them.
    `refuses` is a token that is answered with a 401; `status`, where set, is the answer to everything;
    `spoils` are bytes of its answers, and others of the same length that stand in their place;
    `moved` are methods of MCP and where their requests are redirected to.
    """

    def __init__(
        self,
        transport: Transport = "http",
        *,
        old: bool = False,
        app: ASGIApp | None = None,
        refuses: str | None = None,
        host: str = "127.0.0.1",
        gauge: Gauge | None = None,
        spoils: tuple[bytes, bytes] | None = None,
    ) -> None:
        self.gauge = gauge or Gauge()
        self.calls: list[str] = []
        self.requests: list[str] = []
        self.headers: list[dict[str, str]] = []
        self.bodies: list[bytes] = []
        self.started = asyncio.Event()
        self.given_up = asyncio.Event()
        self.release = asyncio.Event()
        self.status = 0
        self.moved: dict[str, str] = {}
        self._host = host
        self._spoils = spoils
        self._old = old
        self._refuses = refuses
        self._came = asyncio.Condition()
        self._path = "/sse" if transport == "sse" else "/mcp"
        self._transport = transport
        self._app = app
        self._port = 0

    @property
    def url(self) -> str:
        """Return what a client gives as `server_url`."""
        return f"http://{self._host}:{self._port}{self._path}"

    @property
    def port(self) -> int:
        """Return the port, which stays the same over restarts."""
        return self._port

    @property
    def logins(self) -> set[str]:
        """The ids that clients were given by their handshakes (of `old` servers)."""
        return {h["mcp-session-id"] for h in self.headers if "mcp-session-id" in h}

    async def saw(self, method: str) -> None:
        """Wait for a request of this method."""
        await self.asked(method, 1)

    async def asked(self, method: str, count: int) -> None:
        """Wait until there were so many requests of this method."""
        async with asyncio.timeout(10), self._came:
            await self._came.wait_for(lambda: self.requests.count(method) >= count)

    async def under_way(self, count: int) -> None:
        """Wait until the tool `slow` was called so often."""
        async with asyncio.timeout(10), self._came:
            await self._came.wait_for(lambda: self.calls.count("slow") >= count)

    @property
    def answers_json(self) -> bool:
        """True where an answer is one JSON body, written when the tool is done."""
        return self._transport == "json"

    @property
    def open_connections(self) -> int:
        """How many TCP connections there are."""
        return len(self._uvicorn.server_state.connections)

    async def __aenter__(self) -> Self:
        """Start listening; the port stays the same over restarts."""
        app = self._app or self._tools_app()
        config = uvicorn.Config(
            self._counted(app),
            host=self._host,
            port=self._port,
            log_config=None,
            ws="none",
            timeout_graceful_shutdown=1,
        )
        self._uvicorn = _Uvicorn(config)
        self._task = asyncio.create_task(self._uvicorn.serve())
        async with asyncio.timeout(10):
            await self._uvicorn.listening.wait()
        [server] = self._uvicorn.servers
        self._port = server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        """Cut all connections and stop listening."""
        self.release.set()
        self.cut()
        self._uvicorn.should_exit = self._uvicorn.force_exit = True
        async with asyncio.timeout(10):
            await self._task
            # Who is forced to exit leaves this task behind, for the collector to find in another test.
            await self._uvicorn.lifespan.shutdown()

    def cut(self) -> None:
        """Break every connection off, as a server that dies does."""
        for connection in list(self._uvicorn.server_state.connections):
            connection.transport.abort()

    def _counted(self, app: ASGIApp) -> ASGIApp:
        async def counted(scope: Scope, receive: Receive, send: Send) -> None:
            if scope["type"] == "http":
                headers = {name.decode(): value.decode() for name, value in scope["headers"]}
                self.requests.append(scope["method"])
                self.headers.append(headers)
                async with self._came:
                    self._came.notify_all()
                if status := self._refusal(headers):
                    await _plain(send, status)
                    return
                if location := self.moved.get(headers.get("mcp-method", "")):
                    await _plain(send, 307, (b"location", location.encode()))
                    return
            await app(scope, self._kept(receive), self._spoilt(send))

        return counted

    def _kept(self, receive: Receive) -> Receive:
        async def keep() -> Any:
            message = await receive()
            self.bodies.append(message.get("body", b""))
            return message

        return keep

    def _spoilt(self, send: Send) -> Send:
        if self._spoils is None:
            return send
        old, new = self._spoils

        async def spoil(message: Any) -> None:
            if "body" in message:
                message["body"] = message["body"].replace(old, new)
            await send(message)

        return spoil

    def _refusal(self, headers: dict[str, str]) -> int:
        if self._refuses and headers.get("authorization") == f"Bearer {self._refuses}":
            return 401
        if self._old and headers.get("mcp-protocol-version", "") >= "2026":
            return 400
        return self.status

    def _tools_app(self) -> ASGIApp:
        tools = self._tools()
        if self._transport == "sse":
            return tools.sse_app(host=self._host)
        json = self._transport == "json"
        return tools.streamable_http_app(json_response=json, host=self._host)

    def _tools(self) -> MCPServer:
        server = MCPServer("tools", log_level="CRITICAL")
        self._add_answering_tools(server)
        self._add_unruly_tools(server)
        return server

    def _add_answering_tools(self, server: MCPServer) -> None:
        read_only = ToolAnnotations(read_only_hint=True)

        @server.tool(annotations=read_only)
        async def echo(text: str) -> CallToolResult:
            """Say it again."""
            self.calls.append("echo")
            return CallToolResult(content=[TextContent(text=text)])

        @server.tool()
        async def add(a: int, b: int) -> dict[str, int]:
            """Add two numbers."""
            self.calls.append("add")
            return {"sum": a + b}

        @server.tool()
        async def picture() -> CallToolResult:
            """Show a pixel."""
            blocks: list[ContentBlock] = [
                TextContent(text="a pixel"),
                ImageContent(data=PIXEL, mime_type="image/png"),
            ]
            return CallToolResult(content=blocks)

        @server.tool()
        async def data() -> CallToolResult:
            """Answer with structure and no text."""
            return CallToolResult(content=[], structured_content={"rows": [1, 2]})

        @server.tool()
        async def huge(size: int) -> CallToolResult:
            """Say much."""
            self.calls.append("huge")
            return CallToolResult(content=[TextContent(text="x" * size)])

    def _add_unruly_tools(self, server: MCPServer) -> None:
        @server.tool()
        async def slow() -> str:
            """Wait until the test lets go."""
            self.calls.append("slow")
            self.started.set()
            async with self._came:
                self._came.notify_all()
            try:
                with self.gauge.running():
                    await self.release.wait()
            except asyncio.CancelledError:
                self.given_up.set()
                raise
            return "done"

        @server.tool()
        async def fail() -> str:
            """Fail."""
            self.calls.append("fail")
            raise ToolError("fail: no such customer")

        @server.tool()
        async def grow(context: Context[Any, Any]) -> str:
            """Offer one tool more, and say so."""
            server.add_tool(lambda: "grown", name="grown")
            await context.session.send_tool_list_changed()
            return "done"

        @server.tool()
        async def die(context: Context[Any, Any]) -> str:
            """Break all connections off in the middle of the call."""
            self.calls.append("die")
            self.cut()
            return "never read"


def paged_app(pages: Sequence[tuple[str | None, int]]) -> ASGIApp:
    """Return a server whose list of tools has these pages: the next cursor, and how many tools.

    The cursor of page n is `n`; a page may name any page as the next one, also an earlier one.
    """

    async def list_tools(_: object, params: PaginatedRequestParams | None) -> ListToolsResult:
        number = int(params.cursor) if params is not None and params.cursor else 0
        following, count = pages[number]
        tools = [
            Tool(name=f"tool_{number}_{i}", input_schema={"type": "object"}) for i in range(count)
        ]
        return ListToolsResult(tools=tools, next_cursor=following)

    async def call_tool(_: object, params: CallToolRequestParams) -> CallToolResult:
        return CallToolResult(content=[TextContent(text=params.name)])

    server = Server("paged", on_list_tools=list_tools, on_call_tool=call_tool)
    return server.streamable_http_app()


@asynccontextmanager
async def silent_server() -> AsyncIterator[tuple[str, list[bytes]]]:
    """Yield the URL of a server that takes connections and never answers, and what it was sent."""
    sent: list[bytes] = []

    async def keep(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        sent.append(b"")
        with contextlib.suppress(OSError):
            while chunk := await reader.read(65536):
                sent[-1] += chunk
        writer.close()

    server = await asyncio.start_server(keep, "127.0.0.1", 0)
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/mcp", sent


@asynccontextmanager
async def scripted_server(
    *answers: bytes, host: str = "127.0.0.1"
) -> AsyncIterator[tuple[str, list[bytes]]]:
    """Yield the URL of a server that gives these answers, one a connection, then closes; and what it got."""
    sent: list[bytes] = []
    left = list(answers)

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        sent.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(left.pop(0) if len(left) > 1 else left[0])
        with contextlib.suppress(OSError):
            await writer.drain()
        writer.close()

    server = await asyncio.start_server(answer, host, 0)
    async with server:
        yield f"http://{host}:{server.sockets[0].getsockname()[1]}/mcp", sent


class _Uvicorn(uvicorn.Server):
    """Leaves the signals of the test process alone, and tells when it listens."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.listening = asyncio.Event()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    async def startup(self, sockets: Any = None) -> None:
        await super().startup(sockets)
        self.listening.set()


async def _plain(send: Send, status: int, *headers: tuple[bytes, bytes]) -> None:
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": b"no"})
