"""The client's side of an HTTP exchange: `engine.ports.Reply` with real back-pressure.

A write waits for the client's socket, so a client that does not read holds back its own stream and nothing
else (rule E6). Every method raises `asyncio.CancelledError` where the client has gone.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

from aiohttp import web

from engine.answers import Answer
from engine.ports import Told
from extproc.messages import JSON
from extproc.operations import STREAM_HEADERS

# Ours and not the library's, whose versions are nobody's business.
SERVER = "holdfast"


class HttpReply:
    """Answers `request`; `response` is what was answered, None while nothing was.

    `closing` becomes true where the connection must not be used again, which the client is told.
    """

    def __init__(self, request: web.BaseRequest, request_id: str) -> None:
        self.response: web.StreamResponse | None = None
        self.closing = False
        self._request = request
        self._headers = {"server": SERVER, "x-request-id": request_id}

    def tell(self, told: Told) -> None:
        """Over HTTP there is nobody to be told."""

    async def answer(self, answer: Answer) -> None:
        """Send a whole answer; where a stream was begun there is nothing left to say it with."""
        if self.response is not None:
            await self.end()
            return
        headers = {**self._headers, **answer.headers}
        response = web.Response(
            status=answer.status, body=answer.body, headers=headers, content_type=JSON
        )
        await self._begin(response)
        await self.end()

    async def open(self) -> None:
        """Start a 200 with an event stream; its head leaves at once."""
        headers = {**self._headers, **dict(STREAM_HEADERS)}
        await self._begin(web.StreamResponse(headers=headers))

    async def begin(self, status: int, headers: dict[str, str]) -> None:
        """Start an answer of bytes."""
        await self._begin(web.StreamResponse(status=status, headers={**self._headers, **headers}))

    async def write(self, frames: bytes) -> None:
        """Send whole events, or more of an answer of bytes; waits while the client does not read."""
        assert self.response is not None
        with _gone():
            await self.response.write(frames)

    async def end(self) -> None:
        """End the answer."""
        assert self.response is not None
        with _gone():
            await self.response.write_eof()

    async def _begin(self, response: web.StreamResponse) -> None:
        self.response = response
        if self.closing:
            response.force_close()
        with _gone():
            await response.prepare(self._request)


@contextmanager
def _gone() -> Iterator[None]:
    """Say in the one way that adapters share that nobody is there to be answered."""
    try:
        yield
    except ConnectionError as exc:
        raise asyncio.CancelledError("the client has gone") from exc
