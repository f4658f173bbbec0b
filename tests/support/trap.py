"""A socket that must not be reached: it listens, and tells who came."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


class Trap:
    """Counts the connections that reach `port`, on the loopback addresses of both families."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.reached = 0
        self._came = asyncio.Event()

    def count(self, _: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Note a connection and cut it."""
        self.reached += 1
        self._came.set()
        writer.transport.abort()

    async def assert_works_and_saw_nothing(self) -> None:
        """Fail if anybody came, or if a connection would not have been noticed."""
        assert self.reached == 0
        _, writer = await asyncio.open_connection("127.0.0.1", self.port)
        writer.close()
        async with asyncio.timeout(5):
            await self._came.wait()


@asynccontextmanager
async def trap(host: str = "127.0.0.1") -> AsyncIterator[Trap]:
    """Listen on `host`, and on ::1 where there is IPv6."""
    waiting = Trap(0)
    server = await asyncio.start_server(waiting.count, host, 0)
    waiting.port = server.sockets[0].getsockname()[1]
    async with server:
        try:
            second = await asyncio.start_server(waiting.count, "::1", waiting.port)
        except OSError:
            yield waiting
            return
        async with second:
            yield waiting
