"""`extproc.kept_connections`: a server that closes connections behind its answers, as llama.cpp does."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from engine.errors import UpstreamFailed
from extproc.envoy.endpoint import parse_model_url
from extproc.model_client import HttpModelClient

ANSWER = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\r\n{}"


class Closing:
    """Answers this many requests of each connection; the next one is read and the connection closed."""

    def __init__(self, answers: int) -> None:
        self.answers = answers
        self.requests = 0
        self.connections = 0
        self.serving: set[asyncio.Task[object] | None] = set()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self.serving.add(asyncio.current_task())
        with contextlib.suppress(asyncio.IncompleteReadError):
            for number in range(self.answers + 1):
                await reader.readuntil(b"\r\n\r\n{}")
                self.requests += 1
                if number < self.answers:
                    writer.write(ANSWER)
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()

    async def ended(self) -> None:
        """Wait until all connections are closed."""
        await asyncio.gather(*(task for task in self.serving if task is not None))


@asynccontextmanager
async def asking(server: Closing) -> AsyncIterator[HttpModelClient]:
    async with asyncio.timeout(10):
        listening = await asyncio.start_server(server.serve, "127.0.0.1", 0)
        port = listening.sockets[0].getsockname()[1]
        endpoint = parse_model_url(f"http://127.0.0.1:{port}")
        async with (
            listening,
            HttpModelClient(endpoint, connect=1, silence=5, api_key=None) as client,
        ):
            yield client
        await server.ended()


async def test_a_request_that_met_a_closing_connection_is_sent_again() -> None:
    """Without Envoy nobody else does; the client sees nothing of it."""
    server = Closing(answers=1)
    async with asking(server) as client:
        for _ in range(3):
            answer = await client.call("/v1/responses", b"{}", {})
            assert await answer.read(100) == b"{}"
            answer.close()
    assert (server.requests, server.connections) == (5, 3)


async def test_a_new_connection_that_breaks_off_is_not_tried_twice() -> None:
    """The server may have begun to work, and to break off is its answer."""
    server = Closing(answers=0)
    async with asking(server) as client:
        with pytest.raises(UpstreamFailed):
            await client.call("/v1/responses", b"{}", {})
    assert server.requests == 1
