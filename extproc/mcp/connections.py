"""The MCP servers of a worker: connections kept, shared by the runs of one tenant, bounded in number."""

from __future__ import annotations

import asyncio
import importlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from extproc.mcp.failure import McpFailure
from extproc.mcp.target import McpLimits, McpTarget
from extproc.outbound.guards import Guards
from extproc.outbound.names import look_up_for

if TYPE_CHECKING:
    from extproc.mcp.connection import McpConnection

Key = tuple[str, McpTarget]
"""A tenant, and a server with the credentials: nobody uses what somebody else has logged in to."""


class McpConnections:
    """Kept by (tenant, URL, headers); the longest unused one makes room for a new one.

    One tenant has at most three quarters of them, and then makes room among its own: one that holds servers
    which never answer leaves the others theirs.

    Every request goes through a transport of `guards`, which stay the caller's to close, after this.
    """

    def __init__(self, guards: Guards, limits: McpLimits) -> None:
        self.limits = limits
        self._guards = guards
        self._kept: dict[Key, McpConnection] = {}
        self._closing: set[McpConnection] = set()
        self._closed = False

    async def aclose(self) -> None:
        """Close all connections, within seconds; calls under way fail."""
        self._closed = True
        connections = [*self._kept.values(), *self._closing]
        await asyncio.gather(*(connection.close() for connection in connections))

    @asynccontextmanager
    async def use(self, key: Key) -> AsyncIterator[McpConnection]:
        """Give a connection for the time of one request, a kept one if there is one.

        It may still be connecting; raises McpFailure where there is no room for another one.
        """
        connection = await self._get(key)
        connection.enter()
        try:
            yield connection
        finally:
            connection.leave()

    def forget(self, key: Key) -> None:
        """Let a kept connection go that has disappointed; others' calls on it go on."""
        if key in self._kept:
            self._kept[key].retire()

    async def _get(self, key: Key) -> McpConnection:
        if key not in self._kept:
            # Half a second of imports, the first time: other streams go on meanwhile.
            module = await asyncio.to_thread(importlib.import_module, "extproc.mcp.connection")
            if self._closed:
                raise McpFailure("The gateway is being stopped.", code=503)
            if key not in self._kept:
                self._make_room(key[0])
                look_up_for(key[0])
                self._kept[key] = module.McpConnection(
                    key[1],
                    self._guards.of(key[1].policy),
                    self.limits,
                    lambda gone: self._drop(key, gone),
                )
        # The longest unused one stands first.
        connection = self._kept[key] = self._kept.pop(key)
        return connection

    def _make_room(self, tenant: str) -> None:
        most = self.limits.connections
        own = [kept for (whose, _), kept in self._kept.items() if whose == tenant]
        if len(own) >= most - most // 4:
            candidates = own
        elif len(self._kept) >= most:
            candidates = list(self._kept.values())
        else:
            return
        idle = next((kept for kept in candidates if not kept.busy), None)
        if idle is None:
            raise McpFailure("Too many MCP servers are in use; try again later.", code=503)
        idle.retire()

    def _drop(self, key: Key, connection: McpConnection) -> None:
        if self._kept.get(key) is connection:
            del self._kept[key]
            self._closing.add(connection)
            connection.on_closed(self._closing.discard)
