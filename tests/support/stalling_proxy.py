"""A TCP proxy in front of an HTTP server that hangs: it takes a request, and never answers it to its end."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from urllib.parse import urlsplit

_PIECE = 65536
_ESTABLISHED = "01"
_REQUEST = re.compile(rb"(?:GET|HEAD|PUT|POST|DELETE) [^ ]+ HTTP/1\.1\r\n")


class StallingProxy:
    """Forwards bytes to the server; `url` leads through it. `stalled` counts the requests that hung."""

    def __init__(self, server: str) -> None:
        self._server = urlsplit(server)
        self._connections: set[_Connection] = set()
        self.flowing = asyncio.Event()
        self.flowing.set()
        self.requests = re.compile(b"")
        self.answered = 0
        self.stalled = 0
        self.url = ""

    def stall(self, requests: bytes = b"", answered: int = 0) -> None:
        """Hang from the next request on whose first line has a match of `requests`.

        With `answered` it reaches the server, and so many bytes of the answer come; without, what hangs is
        also the rest of the request.
        """
        self.requests, self.answered = re.compile(requests), answered
        self.flowing.clear()

    def flow(self) -> None:
        """Hang no longer: what waits here goes on."""
        self.flowing.set()

    @property
    def open(self) -> int:
        """How many connections its clients have not closed.

        The kernel tells it of their ends: what they sent and we do not read keeps the news from ours.
        """
        port = f":{urlsplit(self.url).port:04X}"
        rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
        return sum(
            remote.endswith(port) and state == _ESTABLISHED for _, _, remote, state, *_ in rows
        )

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one connection."""
        host, port = self._server.hostname, self._server.port
        up_reader, up_writer = await asyncio.open_connection(host, port)
        connection = _Connection(self, writer, up_writer)
        self._connections.add(connection)
        pumps = {
            asyncio.create_task(connection.forward(reader)),
            asyncio.create_task(connection.back(up_reader)),
        }
        await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
        for pump in pumps:
            pump.cancel()
        await asyncio.wait(pumps)
        connection.abort()
        self._connections.discard(connection)
        connection.served.set()

    async def close(self) -> None:
        """End all connections; returns when they are served no more."""
        self.flow()
        async with asyncio.timeout(10):
            for connection in list(self._connections):
                connection.abort()
                await connection.served.wait()


class _Connection:
    def __init__(
        self, proxy: StallingProxy, writer: asyncio.StreamWriter, up_writer: asyncio.StreamWriter
    ) -> None:
        self._proxy = proxy
        self._writer = writer
        self._up_writer = up_writer
        # So many bytes of the answer still come; None for all.
        self._left: int | None = None
        self.served = asyncio.Event()

    async def forward(self, reader: asyncio.StreamReader) -> None:
        with suppress(ConnectionError):
            while data := await reader.read(_PIECE):
                if (head := _REQUEST.match(data)) and self._hangs(head[0]):
                    await self._proxy.flowing.wait()
                self._up_writer.write(data)
                await self._up_writer.drain()

    def _hangs(self, head: bytes) -> bool:
        """Return whether a request is not even passed on."""
        if self._proxy.flowing.is_set() or not self._proxy.requests.search(head):
            return False
        self._proxy.stalled += 1
        self._left = self._proxy.answered or None
        return not self._proxy.answered

    async def back(self, reader: asyncio.StreamReader) -> None:
        with suppress(ConnectionError):
            while data := await reader.read(_PIECE):
                if self._left is not None:
                    data, rest = data[: self._left], data[self._left :]
                    self._left -= len(data)
                    self._writer.write(data)
                    if self._left == 0:
                        await self._proxy.flowing.wait()
                        self._left = None
                    data = rest
                self._writer.write(data)
                await self._writer.drain()

    def abort(self) -> None:
        for writer in (self._writer, self._up_writer):
            writer.transport.abort()


@asynccontextmanager
async def stalling_proxy(server: str) -> AsyncIterator[StallingProxy]:
    """Put a proxy in front of the HTTP server at a URL."""
    proxy = StallingProxy(server)
    listening = await asyncio.start_server(proxy.serve, "127.0.0.1")
    host, port = listening.sockets[0].getsockname()[:2]
    proxy.url = f"http://{host}:{port}"
    try:
        yield proxy
    finally:
        listening.close()
        await proxy.close()
