"""An MCP server as a provider of tools."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import TYPE_CHECKING, TypeVar

import msgspec

from engine.api.mcp import McpTool, ToolFilter
from engine.errors import ToolsUnavailable
from engine.ports import ToolDefinition, ToolOutcome
from engine.ports.tracing import NO_HEADERS
from extproc.mcp.connections import Key, McpConnections
from extproc.mcp.failure import McpFailure
from extproc.mcp.target import McpTarget
from extproc.outbound.policy import OutboundPolicy, check_url

if TYPE_CHECKING:
    from extproc.mcp.connection import McpConnection

_T = TypeVar("_T")
_arguments = msgspec.json.Decoder(dict[str, object])
_INVALID_PARAMS = -32602


def open_provider(
    tool: McpTool, param: str, *, tenant: str, connections: McpConnections, policy: OutboundPolicy
) -> McpProvider:
    """Return the provider of a declared server; `param` is the declaration's path.

    Connects to nothing yet. Raises TargetRefused for a URL that can be seen to lead inside.
    """
    assert tool.server_url is not None, "its connector was not looked up"
    check_url(policy, tool.server_url, f"{param}.server_url")
    target = McpTarget(tool.server_url, tuple(sorted(tool.sent_headers().items())), policy)
    return McpProvider(tool.server_label, (tenant, target), connections, tool.allowed)


class McpProvider:
    """The tools of one server that the client allows (rule T4); connects when it is first asked."""

    def __init__(
        self,
        label: str,
        key: Key,
        connections: McpConnections,
        allowed: ToolFilter,
        trace: Mapping[str, str] = NO_HEADERS,
    ) -> None:
        self.label = label
        self._trace = trace
        self._key = key
        self._connections = connections
        self._allowed = allowed

    def within(self, trace: Mapping[str, str]) -> McpProvider:
        """Return the same provider, whose calls carry a trace."""
        return McpProvider(self.label, self._key, self._connections, self._allowed, trace)

    def forget(self) -> None:
        """Have the next request ask a new connection, which knows nothing of what was listed before."""
        self._connections.forget(self._key)

    async def definitions(self, *, timeout: float) -> Sequence[ToolDefinition]:
        """Return the server's tools that the client allows; raises ToolsUnavailable."""
        try:
            async with asyncio.timeout(timeout):
                # A list has no effect: it is asked for again whatever went wrong.
                tools = await self._twice(lambda kept: kept.tools(), lambda _: True)
        except TimeoutError as exc:
            self._connections.forget(self._key)
            raise self._unavailable(f"No answer came within {timeout:g} seconds.") from exc
        except McpFailure as exc:
            raise self._unavailable(exc.message) from exc
        return [
            tool for tool in tools if self._allowed.matches(tool.name, read_only=tool.read_only)
        ]

    async def call(self, name: str, arguments: bytes, *, timeout: float) -> ToolOutcome:
        """Call a tool; every failure is an outcome (rule T2), invalid arguments too (rule T7)."""
        try:
            given = _arguments.decode(arguments)
        except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
            return McpFailure(
                "The arguments must be a JSON object.", code=_INVALID_PARAMS, protocol=True
            ).outcome()
        try:
            async with asyncio.timeout(timeout):
                return await self._twice(
                    lambda kept: kept.call(name, given, self._trace), lambda failure: failure.unsent
                )
        except TimeoutError:
            return McpFailure(
                f"No answer came within {timeout:g} seconds; it may have had its effect.", code=504
            ).outcome()
        except McpFailure as failure:
            return failure.outcome()

    async def _twice(
        self,
        ask: Callable[[McpConnection], Awaitable[_T]],
        may_repeat: Callable[[McpFailure], bool],
    ) -> _T:
        """Ask over a kept connection, and once more over a new one if that had gone bad unnoticed."""
        async with self._connections.use(self._key) as connection:
            kept = connection.connected
            try:
                return await ask(connection)
            except McpFailure as failure:
                if not (kept and may_repeat(failure)):
                    raise
        self._connections.forget(self._key)
        async with self._connections.use(self._key) as connection:
            return await ask(connection)

    def _unavailable(self, why: str) -> ToolsUnavailable:
        return ToolsUnavailable(f"The tools of MCP server '{self.label}' cannot be listed. {why}")
