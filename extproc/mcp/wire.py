"""Between the MCP SDK and the guarded transport: what fails is the failure of one request only.

The SDK ends a whole connection, and every call on it, when one HTTP request fails, and reports neither
the status nor the reason. Here a failed request is answered, in the server's place, with a JSON-RPC error
that carries both; the SDK hands that to the one caller whom it concerns.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable

import httpx2
import msgspec

from engine.api.json import encode
from engine.errors import EngineError
from extproc.mcp.failure import FAILURE_CODE
from extproc.mcp.pace import Pace

_ERROR_BYTES = 64 * 2**10
_SHORT = 10.0
"""Seconds for what is answered at once by any server that works: notifications, and saying goodbye."""
_GOODBYE = 1.0
_EVENT_ENDS = (b"\n\n", b"\r\n\r\n", b"\r\r")
_LEGACY_EVENT = 2**20
"""What the SDK takes of one event over the older transport, in bytes; it ends the connection at more."""


class _Sent(msgspec.Struct):
    id: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET


class _Params(msgspec.Struct):
    meta: dict[str, object] = msgspec.field(name="_meta", default_factory=dict)


class _Traced(msgspec.Struct):
    params: _Params = msgspec.field(default_factory=_Params)


class _Error(msgspec.Struct):
    code: int
    message: str


class _Refusal(msgspec.Struct):
    jsonrpc: str
    error: _Error


_sent = msgspec.json.Decoder(_Sent)
_traced = msgspec.json.Decoder(_Traced)
_TRACE = ("traceparent", "tracestate")
_refusal = msgspec.json.Decoder(_Refusal)


class McpTransport(httpx2.AsyncBaseTransport):
    """The transport of one connection; `guarded` is shared and stays open.

    `broken(reason)` is called when a connection that lives on one event stream (`legacy_stream`) has lost
    it, or could not send: the SDK would leave its callers waiting. `pace` is that of event streams opened
    again.
    """

    def __init__(
        self,
        guarded: httpx2.AsyncBaseTransport,
        url: str,
        *,
        legacy_stream: bool,
        broken: Callable[[str], None],
        pace: Pace,
    ) -> None:
        self._guarded = guarded
        self._origin = _origin(httpx2.URL(url))
        self._legacy_stream = legacy_stream
        self._broken = broken
        self._pace = pace
        self.refusal: tuple[int, str] | None = None
        """Status and message of the last request that failed."""

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        """Send one request; what fails is answered with a status from 400 on, never raised."""
        try:
            self._check_origin(request)
            _set_patience(request, self._legacy_stream)
            _carry_trace(request)
            if request.method == "GET":
                await self._pace.wait()
            response = await self._guarded.handle_async_request(request)
        except (httpx2.HTTPError, httpx2.StreamError, EngineError) as exc:
            return self._failed(request, _status(exc), _reason(exc), unsent=_unsent(exc))
        if response.status_code >= 400:
            return await self._refused(request, response)
        if self._legacy_stream and request.method == "GET":
            response.stream = _Watched(response.stream, self._broken)
        return response

    def _check_origin(self, request: httpx2.Request) -> None:
        # What an SSE server names as its endpoint, an authorization server or anything else elsewhere.
        if _origin(request.url) != self._origin:
            raise httpx2.UnsupportedProtocol("it named an address on another server")

    async def _refused(self, request: httpx2.Request, response: httpx2.Response) -> httpx2.Response:
        body = await _read(response)
        status = response.status_code
        # By this a server says that it has forgotten us; it has not looked at the message.
        gone = status == 404 and "mcp-session-id" in request.headers
        if not (gone or self._legacy_stream) and _is_error(body):
            # The server's own words: the SDK reads them whatever the status.
            return httpx2.Response(
                status, content=body, headers={"content-type": "application/json"}, request=request
            )
        return self._failed(request, status, _words(status), unsent=gone)

    def _failed(
        self, request: httpx2.Request, status: int, message: str, *, unsent: bool
    ) -> httpx2.Response:
        self.refusal = (status, message)
        if self._legacy_stream:
            self._broken(message)
        error = {
            "code": FAILURE_CODE,
            "message": message,
            "data": {"http_status": status, "unsent": unsent},
        }
        return httpx2.Response(
            max(status, 400),
            content=encode({"jsonrpc": "2.0", "id": None, "error": error}),
            headers={"content-type": "application/json"},
            request=request,
        )


class _Watched(httpx2.AsyncByteStream):
    """The event stream on which a legacy connection lives; tells once that it has ended, and why."""

    def __init__(self, stream: object, ended: Callable[[str], None]) -> None:
        assert isinstance(stream, httpx2.AsyncByteStream)
        self._stream = stream
        self._ended = ended
        self._event_bytes = 0

    async def __aiter__(self) -> AsyncIterator[bytes]:
        try:
            async for chunk in self._stream:
                whole = chunk.endswith(_EVENT_ENDS)
                self._event_bytes = 0 if whole else self._event_bytes + len(chunk)
                yield chunk
        finally:
            self._ended(
                "The MCP server closed the connection."
                if self._event_bytes < _LEGACY_EVENT
                else f"The MCP server's answer is longer than {_LEGACY_EVENT} bytes."
            )

    async def aclose(self) -> None:
        await self._stream.aclose()


def _set_patience(request: httpx2.Request, legacy_stream: bool) -> None:
    """Bound the wait for what must be answered at once: the SDK sends nothing else meanwhile."""
    seconds = None
    if request.method == "DELETE":
        seconds = _GOODBYE
    elif request.method == "POST" and (legacy_stream or not _has_id(request.content)):
        seconds = _SHORT
    if seconds is not None:
        given = request.extensions.get("timeout", {})
        request.extensions = {**request.extensions, "timeout": {**given, "read": seconds}}


def _carry_trace(request: httpx2.Request) -> None:
    """Say by headers what a message says of its trace: what is between us and the server reads only these."""
    if request.method == "POST" and b'"traceparent"' in request.content:
        trace = _traced.decode(request.content).params.meta
        request.headers.update({name: str(trace[name]) for name in _TRACE if name in trace})


def _has_id(body: bytes) -> bool:
    return _sent.decode(body).id is not msgspec.UNSET


def _is_error(body: bytes) -> bool:
    try:
        return bool(_refusal.decode(body))
    except (msgspec.DecodeError, RecursionError):
        return False


async def _read(response: httpx2.Response) -> bytes:
    """Return the body of a refusal, nothing where it is too long or breaks off."""
    body = b""
    try:
        async for chunk in response.stream:  # type: ignore[union-attr]
            body += chunk
            if len(body) > _ERROR_BYTES:
                return b""
    except (httpx2.HTTPError, httpx2.StreamError):
        return b""
    finally:
        await response.aclose()
    return body


def _origin(url: httpx2.URL) -> tuple[str, bytes, int | None]:
    return (url.scheme, url.raw_host, url.port)


def _unsent(exc: Exception) -> bool:
    return isinstance(exc, EngineError | httpx2.ConnectError | httpx2.ConnectTimeout)


def _status(exc: Exception) -> int:
    if isinstance(exc, EngineError):
        return exc.status
    return 504 if isinstance(exc, httpx2.TimeoutException) else 502


def _reason(exc: Exception) -> str:
    if isinstance(exc, EngineError):
        return exc.message
    if isinstance(exc, httpx2.TimeoutException):
        return "The MCP server did not answer in time."
    if isinstance(exc, httpx2.ConnectError):
        return "The MCP server could not be reached."
    if isinstance(exc, httpx2.StreamError | httpx2.UnsupportedProtocol):
        return f"The MCP server's answer was not taken: {exc}."
    return "The connection to the MCP server broke off."


def _words(status: int) -> str:
    if status in (401, 403):
        return f"The MCP server refused the credentials (HTTP {status})."
    return f"The MCP server answered with HTTP {status}."
