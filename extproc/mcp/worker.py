"""The MCP side of a worker, put together: the guard, the kept connections, what opens a provider."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from engine.api.mcp import McpTool
from engine.ports import ToolProvider
from engine.toolbox import OpenProvider
from extproc.mcp.connections import McpConnections
from extproc.mcp.provider import open_provider
from extproc.mcp.target import McpLimits
from extproc.outbound.policy import OutboundPolicy
from extproc.outbound.transport import GuardedTransport


@asynccontextmanager
async def mcp_servers(policy: OutboundPolicy, limits: McpLimits) -> AsyncIterator[OpenProvider]:
    """Yield what opens the provider of a declared server; all connections are closed on exit."""
    guarded = GuardedTransport(policy, body_limit=limits.answer_bytes)
    connections = McpConnections(guarded, limits)

    def opened(tool: McpTool, param: str, tenant: str) -> ToolProvider:
        return open_provider(tool, param, tenant=tenant, connections=connections, policy=policy)

    try:
        yield opened
    finally:
        await connections.aclose()
        await guarded.aclose()
