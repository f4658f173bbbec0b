"""The HTTP listener: the whole API without ext_proc, for Envoys older than 1.37 and for no Envoy at all.

The same table of routes, the same checks and the same engine as behind ext_proc, so that a client finds no
difference. What Envoy does elsewhere is done here: bodies are bounded as they come, a client that waits for
permission to send gets it, one that leaves is noticed, and each answer has its request's id.
"""

from __future__ import annotations

import asyncio
import logging
import os
import re
from collections.abc import AsyncIterator
from typing import Any

from aiohttp import web

from engine.answers import Answer, error_answer
from engine.errors import InvalidRequest, NotFound
from extproc import messages, routes
from extproc.admission import Admission
from extproc.file_operations import perform_content, perform_form
from extproc.http_address import HttpAddress, UnixAddress
from extproc.http_reply import HttpReply
from extproc.messages import Head
from extproc.metrics.counted import UNCOUNTED, Door, Visit
from extproc.operations import Endpoints, answer_errors, perform
from extproc.pb.ext_proc_pb2 import ProcessingRequest
from extproc.routes import Operation

HEALTH = "/health"

_log = logging.getLogger(__name__)

# As much as the public listener of deploy/envoy/envoy.yaml takes.
_HEAD_BYTES = 96 << 10
# An answered client that is still sending: so much is read of it, so that it sees the answer and not a
# reset; then its connection is closed.
_LEFT_BYTES, _LEFT_SECONDS = 1 << 20, 1.0
_LAST_WORDS_SECONDS = 1.0
# An id that comes from outside goes into logs and headers.
_REQUEST_ID = re.compile(r"[!-~]{1,200}")


class HttpExchanges:
    """Serves HTTP requests, one exchange each; `content_alone`: no other operation than that."""

    def __init__(
        self,
        endpoints: Endpoints,
        admission: Admission,
        *,
        content_alone: bool = False,
        door: Door = UNCOUNTED,
    ) -> None:
        self._door = door
        self._content_alone = content_alone
        self._endpoints = endpoints
        self._admission = admission
        self.draining = False

    async def serve(self, request: web.BaseRequest) -> web.StreamResponse:
        """Answer one request; asyncio.CancelledError where its client has gone."""
        request_id = _request_id(request)
        reply = HttpReply(request, request_id)
        # The next request of this client shall meet another worker.
        reply.closing = self.draining
        if request.path == HEALTH and request.method in ("GET", "HEAD"):
            await reply.answer(self._health())
        else:
            await self._counted(request, request_id, reply)
        assert reply.response is not None
        return reply.response

    async def _counted(self, request: web.BaseRequest, request_id: str, reply: HttpReply) -> None:
        visit = self._door.enter()
        try:
            await answer_errors(self._exchange(request, request_id, reply, visit), reply)
        finally:
            visit.status = None if reply.response is None else reply.response.status
            visit.leave()

    def _health(self) -> Answer:
        if self.draining:
            return Answer(503, b'{"status":"draining"}')
        return Answer(200, b'{"status":"serving"}')

    async def _exchange(
        self, request: web.BaseRequest, request_id: str, reply: HttpReply, visit: Visit
    ) -> None:
        first = _first(request, request_id)
        try:
            visit.tenant = tenant = self._admission.identify(first)
            head = messages.read_head(first.request_headers)
            match = routes.find(head.method, head.target)
            visit.asks(match.operation)
            caller = self._admission.caller(tenant, head)
            if match.operation is Operation.FILE_CONTENT:
                await perform_content(self._endpoints, match, caller, reply)
                return
            if self._content_alone:
                raise NotFound("Nothing but the content of files is served here.")
            if match.takes_form:
                pieces = self._pieces(request)
                await perform_form(self._endpoints, match, caller, head, pieces, reply)
                return
            body = b""
            if match.takes_body:
                self._admission.check_head(head)
                body = await self._body(request, head)
        except BaseException:
            # What is left of the body may be endless, and is not to be taken for the next request.
            reply.closing = reply.closing or not request.content.at_eof()
            raise
        await perform(self._endpoints, match, caller, body, reply)

    async def _body(self, request: web.BaseRequest, head: Head) -> bytes:
        pieces: list[bytes] = []
        size = 0
        async for piece in self._pieces(request):
            pieces.append(piece)
            size += len(piece)
            self._admission.check_size(size)
        return self._admission.decoded(head, b"".join(pieces))

    async def _pieces(self, request: web.BaseRequest) -> AsyncIterator[bytes]:
        """Yield a body as it arrives."""
        await _permit(request)
        while piece := await self._next(request):
            yield piece

    async def _next(self, request: web.BaseRequest) -> bytes:
        """Return more of a body that is still coming, empty at its end; raises TooSlow."""
        try:
            async with asyncio.timeout(self._admission.body_silence):
                return await request.content.readany()
        except TimeoutError:
            raise self._admission.too_slow() from None
        except web.RequestPayloadError as exc:
            raise InvalidRequest(
                f"The request's body cannot be read: {exc}.", code="invalid_body"
            ) from exc


class HttpTransport:
    """Serves HTTP on `address` until it is stopped (`extproc.transport.Transport`)."""

    def __init__(self, address: HttpAddress, exchanges: HttpExchanges) -> None:
        self._address = address
        self._exchanges = exchanges
        self._running: dict[asyncio.Task[Any], web.RequestHandler] = {}
        self._server: _Server | None = None
        self._runner: web.ServerRunner | None = None

    @property
    def addresses(self) -> list[Any]:
        """Where it really listens: (host, port) where the system chose the port, or a path."""
        return [] if self._runner is None else self._runner.addresses

    async def start(self) -> None:
        """Listen and serve; returns when listening. Raises OSError where it cannot."""
        self._server = _Server(
            self._serve,
            # How a client that leaves is noticed, also in a silence.
            handler_cancellation=True,
            # Bodies are decoded by `extproc.encodings`, with a bound.
            auto_decompress=False,
            access_log=None,
            max_line_size=_HEAD_BYTES,
            max_field_size=_HEAD_BYTES,
            # What is left of a body is read by us, with a bound.
            lingering_time=0,
        )
        self._runner = web.ServerRunner(self._server)
        await self._runner.setup()
        await self._site(self._runner).start()

    def _site(self, runner: web.ServerRunner) -> web.BaseSite:
        backlog = 4096
        if isinstance(self._address, UnixAddress):
            return web.UnixSite(runner, str(self._address.path), backlog=backlog)
        # Each worker listens on the same port, and the kernel spreads the connections over them.
        return web.TCPSite(
            runner, self._address.host, self._address.port, backlog=backlog, reuse_port=True
        )

    async def drain(self) -> None:
        """Report at `/health` that nothing new shall be sent, and let each answer close its connection."""
        self._exchanges.draining = True

    async def stop(self, grace: float) -> None:
        """Listen no more, give the running exchanges `grace` seconds, and end.

        A second call with less time shortens the first.
        """
        if self._server is None or self._runner is None:
            return
        for site in self._runner.sites:
            await site.stop()
        busy = set(self._running.values())
        for connection in self._server.connections:
            if connection in busy:
                connection.close()
            else:
                connection.force_close()
        if self._running:
            _, late = await asyncio.wait(self._running, timeout=grace)
            for task in late:
                task.cancel()
        await self._server.shutdown(_LAST_WORDS_SECONDS)

    async def _serve(self, request: web.BaseRequest) -> web.StreamResponse:
        task = asyncio.current_task()
        assert task is not None
        self._running[task] = request.protocol
        try:
            response = await self._exchanges.serve(request)
            await _read_left(request)
            return response
        finally:
            del self._running[task]


class _Connection(web.RequestHandler):
    """A connection that answers what is no HTTP like everything else: as an error of the API."""

    __slots__ = ()

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        if request.writer.output_size > 0:
            raise ConnectionError("the answer has begun")
        _log.debug("a request that is no HTTP: %s", exc)
        told = f"The request is not valid HTTP: {(message or str(exc)).strip().splitlines()[0]}"
        answer = error_answer(InvalidRequest(told, code="bad_http"))
        response = web.Response(status=answer.status, body=answer.body, content_type=messages.JSON)
        response.force_close()
        return response


class _Server(web.Server):
    def __call__(self) -> web.RequestHandler:
        return _Connection(self, loop=self._loop, **self._kwargs)


def _first(request: web.BaseRequest, request_id: str) -> ProcessingRequest:
    """Return what Envoy would say of the request first."""
    given = [pair for pair in request.raw_headers if pair[0].lower() != b"x-request-id"]
    return messages.request_head(
        request.method,
        request.raw_path,
        [*given, (b"x-request-id", request_id.encode())],
        ended=not request.body_exists,
    )


def _request_id(request: web.BaseRequest) -> str:
    given = request.headers.get("x-request-id", "")
    return given if _REQUEST_ID.fullmatch(given) else os.urandom(16).hex()


async def _permit(request: web.BaseRequest) -> None:
    """Let a client send that waits for it: its head was good."""
    if request.headers.get("expect", "").lower() == "100-continue":
        await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        # It counts as nothing of the answer.
        request.writer.output_size = 0


async def _read_left(request: web.BaseRequest) -> None:
    """Read what an answered client still sends, for a while."""
    left = _LEFT_BYTES
    try:
        async with asyncio.timeout(_LEFT_SECONDS):
            while left > 0 and (piece := await request.content.readany()):
                left -= len(piece)
    except (TimeoutError, web.RequestPayloadError):
        pass
