"""The MCP side of a worker, put together: the guards, the kept connections, what opens a provider."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

import msgspec

from engine.api.mcp import McpTool
from engine.toolbox import OpenProvider
from extproc.mcp.connections import McpConnections
from extproc.mcp.provider import McpProvider, open_provider
from extproc.mcp.target import McpLimits
from extproc.outbound.guards import Guards
from extproc.outbound.policy import OutboundPolicy


class McpServers(msgspec.Struct, frozen=True):
    """What opens the provider of a declared server; `open_anew` one that lists its server's tools anew."""

    open: OpenProvider
    open_anew: OpenProvider


@asynccontextmanager
async def mcp_servers(
    policy: OutboundPolicy, limits: McpLimits, trusted: Mapping[str, OutboundPolicy]
) -> AsyncIterator[McpServers]:
    """Yield the ways to MCP servers; all connections are closed on exit.

    `policy` holds for every server that a request or a tenant names, `trusted` has those of the operator's
    connectors, by id.
    """
    guards = Guards(body_limit=limits.answer_bytes)
    connections = McpConnections(guards, limits)

    def opened(tool: McpTool, param: str, tenant: str) -> McpProvider:
        own = trusted.get(tool.connector or "", policy)
        return open_provider(tool, param, tenant=tenant, connections=connections, policy=own)

    def opened_anew(tool: McpTool, param: str, tenant: str) -> McpProvider:
        provider = opened(tool, param, tenant)
        provider.forget()
        return provider

    try:
        yield McpServers(opened, opened_anew)
    finally:
        await connections.aclose()
        await guards.aclose()
