"""A TCP proxy in front of an HTTP server that hangs: it takes a request, and never answers it to its end."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from urllib.parse import urlsplit

_PIECE = 65536
_REQUEST = re.compile(rb"(?:GET|HEAD|PUT|POST|DELETE) [^ ]+ HTTP/1\.1\r\n")


class StallingProxy:
    """Forwards bytes to the server; `url` leads through it.

    `stalled` counts the requests that hang, `open` the connections of now.
    """

    def __init__(self, server: str) -> None:
        self._server = urlsplit(server)
        self._stalls: re.Pattern[bytes] | None = None
        self._answered = 0
        self._flowing = asyncio.Event()
        self._flowing.set()
        self.stalled = 0
        self.open = 0
        self.url = ""

    def stall(self, requests: bytes = b"", answered: int = 0) -> None:
        """Hang from the next request on whose first line has a match of `requests`.

        With `answered` it reaches the server, and so many bytes of the answer come; without, what hangs is
        also the rest of the request.
        """
        self._stalls, self._answered = re.compile(requests), answered
        self._flowing.clear()

    def flow(self) -> None:
        """Hang no longer: what waits here goes on."""
        self._stalls = None
        self._flowing.set()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one connection."""
        up_reader, up_writer = await asyncio.open_connection(
            self._server.hostname, self._server.port
        )
        self.open += 1
        left = _Left()
        pumps = {
            asyncio.create_task(self._forward(reader, up_writer, left)),
            asyncio.create_task(self._back(up_reader, writer, left)),
        }
        try:
            await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for pump in pumps:
                pump.cancel()
            writer.close()
            up_writer.close()
            self.open -= 1

    async def _forward(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, left: _Left
    ) -> None:
        while data := await reader.read(_PIECE):
            if self._stalls and (head := _REQUEST.match(data)) and self._stalls.search(head[0]):
                self.stalled += 1
                left.answer = self._answered
                if not self._answered:
                    await self._wait_for_end(reader)
            writer.write(data)
            await writer.drain()

    async def _wait_for_end(self, reader: asyncio.StreamReader) -> None:
        await self._flowing.wait()

    async def _back(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, left: _Left
    ) -> None:
        while data := await reader.read(_PIECE):
            if left.answer is not None:
                passed = data[: left.answer]
                left.answer -= len(passed)
                writer.write(passed)
                if not left.answer:
                    await self._flowing.wait()
                    left.answer = None
                data = data[len(passed) :]
            writer.write(data)
            await writer.drain()


class _Left:
    """So many bytes of a connection's answer still pass; None for all."""

    def __init__(self) -> None:
        self.answer: int | None = None


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
        proxy.flow()
        listening.close()
