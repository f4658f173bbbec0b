"""One kept connection to one MCP server.

The SDK's client must be left in the task that entered it, and takes that task down when it breaks: so each
connection has an owner task that does nothing else. Calls are made in the tasks of the callers, who keep
their own cancellation and deadlines.
"""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Callable, Mapping
from contextlib import AsyncExitStack
from importlib.metadata import version

import httpx2
import msgspec
from mcp import Client, MCPError
from mcp.client.sse import sse_client
from mcp.client.streamable_http import streamable_http_client
from mcp_types import (
    CONNECTION_CLOSED,
    HEADER_MISMATCH,
    PARSE_ERROR,
    CallToolRequest,
    CallToolRequestParams,
    CallToolResult,
    Implementation,
    InputRequiredResult,
    ServerNotification,
    ToolListChangedNotification,
)
from pydantic import TypeAdapter, ValidationError

from engine.ports import ToolDefinition, ToolOutcome
from engine.ports.tracing import NO_HEADERS
from extproc.mcp.failure import FAILURE_CODE, FailureData, McpFailure
from extproc.mcp.listing import list_tools
from extproc.mcp.outcome import cut, outcome_of
from extproc.mcp.pace import Pace
from extproc.mcp.target import McpLimits, McpTarget
from extproc.mcp.wire import McpTransport

# These log URLs, headers and messages; URLs and messages hold secrets (rule X4).
for _name in ("mcp", "httpx2", "httpcore2"):
    logging.getLogger(_name).setLevel(logging.CRITICAL + 1)

_SAYS_GOODBYE = 2.0
_IS_OLD = frozenset((400, 404, 405))
"""Statuses by which a server shows that it knows the older transport only."""
_ANSWER = TypeAdapter[CallToolResult | InputRequiredResult](CallToolResult | InputRequiredResult)
_UNREADABLE = re.compile("Failed to parse (JSON response|SSE message): ")
_INFO = Implementation(name="holdfast", version=version("holdfast"))


class McpConnection:
    """A connection that connects itself, serves any number of calls, and closes when it is idle or broken.

    `gone(connection)` is called once, when it must not be given to new callers any more.
    """

    def __init__(
        self,
        target: McpTarget,
        guarded: httpx2.AsyncBaseTransport,
        limits: McpLimits,
        gone: Callable[[McpConnection], None],
    ) -> None:
        self._target = target
        self._guarded = guarded
        self._limits = limits
        self._gone = gone
        self._loop = asyncio.get_running_loop()
        self._client: asyncio.Future[Client] = self._loop.create_future()
        self._end = asyncio.Event()
        self._legacy = False
        self._retired = False
        self._reason = "The connection to the MCP server was closed."
        self._users = 0
        self._abandoned = 0
        self._idle: asyncio.TimerHandle | None = None
        self._listing = asyncio.Lock()
        self._tools: tuple[ToolDefinition, ...] | None = None
        self._tools_until = 0.0
        self._owner = self._loop.create_task(self._own())

    @property
    def busy(self) -> bool:
        """True while somebody uses it."""
        return self._users > 0

    @property
    def connected(self) -> bool:
        """True once the handshake is done."""
        return self._client.done()

    def enter(self) -> None:
        """Count a user: the connection does not close under a user for being idle."""
        self._users += 1
        if self._idle is not None:
            self._idle.cancel()

    def leave(self) -> None:
        """Count a user less; the last one starts the idle time."""
        self._users -= 1
        if self._users == 0 and self._retired:
            self._end_it()
        elif self._users == 0:
            # Retired first: nobody may be given what is about to close.
            self._idle = self._loop.call_later(self._limits.idle, self.retire)

    def retire(self) -> None:
        """Take no new users, and close when the last one has left."""
        if self._retired:
            return
        self._retired = True
        self._gone(self)
        if self._idle is not None:
            self._idle.cancel()
        if not self.busy:
            self._end_it()

    def on_closed(self, closed: Callable[[McpConnection], None]) -> None:
        """Have `closed(connection)` called when nothing of it is left."""
        self._owner.add_done_callback(lambda _: closed(self))

    async def close(self) -> None:
        """Close within seconds, whatever the server does; calls under way fail."""
        self._end_it()
        _, late = await asyncio.wait({self._owner}, timeout=_SAYS_GOODBYE)
        if late:
            self._owner.cancel()
            await asyncio.wait(late, timeout=_SAYS_GOODBYE)

    async def tools(self) -> tuple[ToolDefinition, ...]:
        """Return the server's tools, from the cache while it is fresh; raises McpFailure."""
        async with self._listing:
            if self._tools is None or self._loop.time() >= self._tools_until:
                client = await self._ready()
                try:
                    self._tools = await list_tools(client, self._limits)
                except (MCPError, ValidationError) as exc:
                    raise await self._failure(exc) from exc
                self._tools_until = self._loop.time() + self._limits.tools_ttl
            return self._tools

    async def call(
        self, name: str, arguments: dict[str, object], trace: Mapping[str, str] = NO_HEADERS
    ) -> ToolOutcome:
        """Call a tool; raises McpFailure where the server did not answer.

        The caller sets the deadline, by cancelling: the call is then taken back at the server, and the
        connection stays usable.
        """
        client = await self._ready()
        try:
            result = await self._send(client, name, arguments, trace)
        except asyncio.CancelledError:
            self._abandoned += 1
            if self._abandoned >= self._limits.abandoned:
                self.retire()
            raise
        except (MCPError, ValidationError) as exc:
            raise await self._failure(exc) from exc
        return outcome_of(result, self._limits)

    async def _send(
        self, client: Client, name: str, arguments: dict[str, object], trace: Mapping[str, str]
    ) -> CallToolResult:
        # Not `client.call_tool`: it also checks the answer against the server's schema, whose patterns can
        # keep a processor busy for minutes, and answers requests for input, which nobody here can.
        # The protocol has a place for a trace's context; `McpTransport` says it by HTTP headers too.
        meta = {"_meta": dict(trace)} if trace else {}
        params = CallToolRequestParams.model_validate(
            {"name": name, "arguments": arguments, **meta}
        )
        request = CallToolRequest(params=params)
        try:
            answer = await client.session.send_request(request, _ANSWER)
        except MCPError as exc:
            if exc.code != HEADER_MISMATCH:
                raise
            # The server wants some arguments as headers too; the SDK learns which from the list.
            await list_tools(client, self._limits)
            answer = await client.session.send_request(request, _ANSWER)
        if isinstance(answer, InputRequiredResult):
            raise McpFailure("The tool asks for input while it runs, which is not possible here.")
        return answer

    async def _ready(self) -> Client:
        return await asyncio.shield(self._client)

    async def _own(self) -> None:
        """Connect, stay until the end, and leave: the one task that enters and leaves the client."""
        try:
            async with AsyncExitStack() as stack:
                async with asyncio.timeout(self._limits.connect):
                    client = await self._connect(stack)
                self._client.set_result(client)
                await self._end.wait()
        except Exception as exc:
            self._fail(_connect_failure(exc))
        finally:
            self._fail(McpFailure(self._reason))
            self.retire()

    def _fail(self, failure: McpFailure) -> None:
        if not self._client.done():
            self._shorten(failure)
            failure.unsent = True
            self._client.set_exception(failure)
            # Nobody may be waiting any more.
            self._client.exception()

    async def _connect(self, stack: AsyncExitStack) -> Client:
        wire = self._wire(legacy_stream=False)
        http = await stack.enter_async_context(self._http(wire))
        transport = streamable_http_client(
            self._target.url, http_client=http, max_sse_event_size=self._limits.answer_bytes
        )
        try:
            return await stack.enter_async_context(self._sdk_client(transport))
        except (MCPError, ExceptionGroup) as exc:
            if wire.refusal is None:
                raise _handshake_failure(exc) from exc
            status, message = wire.refusal
            first = McpFailure(message, code=status)
            if status not in _IS_OLD:
                raise first from exc
        return await self._connect_legacy(stack, first)

    async def _connect_legacy(self, stack: AsyncExitStack, first: McpFailure) -> Client:
        self._legacy = True
        wire = self._wire(legacy_stream=True)
        transport = sse_client(
            self._target.url, httpx_client_factory=lambda *_, **__: self._http(wire)
        )
        try:
            return await stack.enter_async_context(self._sdk_client(transport, mode="legacy"))
        except (MCPError, httpx2.HTTPError, ExceptionGroup) as exc:
            # Both transports failed: the newer one's answer tells more.
            raise first from exc

    def _sdk_client(self, transport: object, mode: str = "auto") -> Client:
        return Client(
            transport,  # type: ignore[arg-type]
            mode=mode,
            cache=None,
            client_info=_INFO,
            message_handler=self._take_message,
        )

    def _wire(self, *, legacy_stream: bool) -> McpTransport:
        return McpTransport(
            self._guarded,
            self._target.url,
            legacy_stream=legacy_stream,
            broken=self._break,
            pace=Pace(self._limits.streams, self._limits.stream_pause),
        )

    def _http(self, wire: McpTransport) -> httpx2.AsyncClient:
        return httpx2.AsyncClient(
            transport=wire,
            headers={"user-agent": "holdfast", **dict(self._target.headers)},
            timeout=httpx2.Timeout(self._limits.connect, read=self._limits.silence),
            trust_env=False,
        )

    async def _take_message(self, message: object) -> None:
        if isinstance(message, ServerNotification) and isinstance(
            message, ToolListChangedNotification
        ):
            self._tools = None
        elif isinstance(message, Exception) and self._legacy:
            # On the one stream of all calls nobody can say whose answer it was: they would all wait.
            self._break(f"The MCP server's answer was not taken: {_why(str(message))}.")

    def _break(self, reason: str) -> None:
        if not self._end.is_set():
            # What follows the first fault is its consequence.
            self._reason = reason
        self.retire()
        self._end_it()

    def _end_it(self) -> None:
        self._end.set()
        if not self._client.done():
            self._owner.cancel()

    def _shorten(self, failure: McpFailure) -> McpFailure:
        # The words may be the server's own; they go to the model and the client, and are stored twice.
        failure.message = cut(failure.message, self._limits.output_text)
        return failure

    async def _failure(self, exc: MCPError | ValidationError) -> McpFailure:
        return self._shorten(await self._failure_of(exc))

    async def _failure_of(self, exc: MCPError | ValidationError) -> McpFailure:
        if isinstance(exc, ValidationError):
            return McpFailure("The MCP server's answer is not what the protocol prescribes.")
        if exc.code == FAILURE_CODE:
            return self._told(exc)
        if exc.code == CONNECTION_CLOSED and (self._legacy or self._end.is_set()):
            # The callers learn that it is over before the owner knows why.
            await asyncio.wait({self._owner}, timeout=_SAYS_GOODBYE)
            return McpFailure(self._reason)
        if exc.code in (CONNECTION_CLOSED, PARSE_ERROR):
            return McpFailure(f"The MCP server's answer was not taken: {_why(exc.message)}.")
        return McpFailure(exc.message, code=exc.code, protocol=True)

    def _told(self, exc: MCPError) -> McpFailure:
        try:
            data = msgspec.convert(exc.data, FailureData)
        except msgspec.ValidationError:
            return McpFailure(exc.message, code=exc.code, protocol=True)
        if data.unsent and data.http_status == 404:
            # The server has forgotten us: the next user gets a new connection.
            self.retire()
        return McpFailure(exc.message, code=data.http_status, unsent=data.unsent)


def _why(message: str) -> str:
    """Return the reason that the SDK gives, without its own words and what pydantic repeats of the answer."""
    reason = _UNREADABLE.sub("", message)
    return "it is no message of the protocol" if "validation error" in reason else reason


def _handshake_failure(exc: Exception) -> McpFailure:
    while isinstance(exc, ExceptionGroup):
        exc = exc.exceptions[0]
    if not isinstance(exc, MCPError):
        return McpFailure("The MCP server does not follow the protocol.")
    return McpFailure(
        f"The MCP server refused the handshake: {exc.message}", code=exc.code, protocol=True
    )


def _connect_failure(exc: Exception) -> McpFailure:
    if isinstance(exc, McpFailure):
        return exc
    if isinstance(exc, TimeoutError):
        return McpFailure("The MCP server did not complete the handshake in time.", code=504)
    return McpFailure("The MCP server could not be connected to.")
