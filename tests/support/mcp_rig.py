"""MCP providers as a worker has them, allowed to reach this machine."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from ipaddress import ip_network

from engine.api.mcp import parse_mcp_tool
from engine.ports import ToolOutcome
from extproc.mcp.connections import McpConnections
from extproc.mcp.provider import McpProvider, open_provider
from extproc.mcp.target import McpLimits
from extproc.outbound.guards import Guards
from extproc.outbound.policy import OutboundPolicy

THIS_MACHINE = OutboundPolicy(allow_http=True, networks=(ip_network("127.0.0.0/8"),))
DEADLINE = 20.0


class McpRig:
    """The connections of one worker."""

    def __init__(self, connections: McpConnections, policy: OutboundPolicy) -> None:
        self.connections = connections
        self._policy = policy

    def provider(self, url: str, *, tenant: str = "t", **fields: object) -> McpProvider:
        """Return the provider of a server declared with these fields."""
        declared = {"type": "mcp", "server_label": "s", "server_url": url or None, **fields}
        return open_provider(
            parse_mcp_tool(declared, "tools[0]"),
            "tools[0]",
            tenant=tenant,
            connections=self.connections,
            policy=self._policy,
        )


@asynccontextmanager
async def mcp_rig(
    limits: McpLimits | None = None, policy: OutboundPolicy = THIS_MACHINE
) -> AsyncIterator[McpRig]:
    """Yield a worker's MCP side; everything is closed on exit."""
    chosen = limits or McpLimits(connect=5)
    guards = Guards(body_limit=chosen.answer_bytes)
    connections = McpConnections(guards, chosen)
    try:
        yield McpRig(connections, policy)
    finally:
        await connections.aclose()
        await guards.aclose()


async def call(
    provider: McpProvider, name: str, arguments: bytes = b"{}", *, timeout: float = DEADLINE
) -> ToolOutcome:
    """Call a tool with a deadline that no test reaches by accident."""
    return await provider.call(name, arguments, timeout=timeout)
