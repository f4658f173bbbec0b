"""The transport of every HTTP client that goes where a request says (rules X3, X5).

Whoever holds such a client, an SDK with a will of its own too, can reach nothing else: each request is
checked, each connection is guarded, no redirect is followed, no body is unbounded.
"""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator
from typing import NoReturn

import httpcore2
import httpx2

from extproc.outbound.connect import GuardedBackend, Resolve
from extproc.outbound.policy import OutboundPolicy, check_target

_REDIRECTS = frozenset((300, 301, 302, 303, 305, 306, 307, 308))
_IDLE_CONNECTIONS = 64
_IDLE_SECONDS = 30.0


class AnswerRefused(httpx2.StreamError):
    """An answer that is not taken: a redirect, compressed, too long, or broken off."""


class GuardedTransport(httpx2.AsyncBaseTransport):
    """HTTP/1.1 to what the policy allows; bodies of at most `body_limit` bytes.

    Event streams have no end, so theirs is bounded by who reads the events. Proxies and certificates
    named in the environment are left alone: a proxy would resolve names again. `close` it once; the
    clients that share it must not (`shared()`).
    """

    def __init__(
        self,
        policy: OutboundPolicy,
        *,
        body_limit: int,
        resolve: Resolve | None = None,
        ssl_context: ssl.SSLContext | None = None,
    ) -> None:
        self.policy = policy
        self._body_limit = body_limit
        self._pool = httpcore2.AsyncConnectionPool(
            ssl_context=ssl_context,
            max_connections=None,
            max_keepalive_connections=_IDLE_CONNECTIONS,
            keepalive_expiry=_IDLE_SECONDS,
            network_backend=GuardedBackend(policy, resolve),
        )

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        """Send one request; raises TargetRefused, AnswerRefused, or httpx2's own errors."""
        check_target(self.policy, request.url)
        # A compressed body is small until it is read: its bound would mean nothing.
        request.headers["accept-encoding"] = "identity"
        try:
            response = await self._pool.handle_async_request(_core_request(request))
        except (httpcore2.NetworkError, httpcore2.TimeoutException, httpcore2.ProtocolError) as exc:
            _raise_translated(exc, request)
        body = _Body(response, self._limit(response))
        answer = httpx2.Response(
            response.status, headers=response.headers, stream=body, extensions=response.extensions
        )
        try:
            _check_head(answer, self._body_limit)
        except BaseException:
            await body.aclose()
            raise
        return answer

    async def aclose(self) -> None:
        """Close all connections."""
        await self._pool.aclose()

    def _limit(self, response: httpcore2.Response) -> int | None:
        media_type = httpx2.Headers(response.headers).get("content-type", "")
        return None if media_type.lower().startswith("text/event-stream") else self._body_limit


class _Body(httpx2.AsyncByteStream):
    def __init__(self, response: httpcore2.Response, limit: int | None) -> None:
        self._response = response
        self._limit = limit

    async def __aiter__(self) -> AsyncIterator[bytes]:
        size = 0
        try:
            async for chunk in self._response.aiter_stream():
                size += len(chunk)
                if self._limit is not None and size > self._limit:
                    raise _too_long(self._limit)
                yield chunk
        except (httpcore2.NetworkError, httpcore2.TimeoutException, httpcore2.ProtocolError) as exc:
            raise AnswerRefused("it broke off") from exc

    async def aclose(self) -> None:
        await self._response.aclose()


def _check_head(answer: httpx2.Response, limit: int) -> None:
    if answer.status_code in _REDIRECTS and "location" in answer.headers:
        raise AnswerRefused(f"it is a redirect (HTTP {answer.status_code}), and none is followed")
    if answer.headers.get("content-encoding", "identity").lower() not in ("", "identity"):
        raise AnswerRefused("it is compressed, which was not asked for")
    length = answer.headers.get("content-length", "")
    if length.isdigit() and int(length) > limit:
        raise _too_long(limit)


def _too_long(limit: int) -> AnswerRefused:
    return AnswerRefused(f"it is longer than {limit} bytes")


def _core_request(request: httpx2.Request) -> httpcore2.Request:
    assert isinstance(request.stream, httpx2.AsyncByteStream)
    url = httpcore2.URL(
        scheme=request.url.raw_scheme,
        host=request.url.raw_host,
        port=request.url.port,
        target=request.url.raw_path,
    )
    return httpcore2.Request(
        request.method,
        url,
        headers=request.headers.raw,
        content=request.stream,
        extensions=request.extensions,
    )


def _raise_translated(exc: Exception, request: httpx2.Request) -> NoReturn:
    # httpx2 has the errors of httpcore2 under the same names.
    kind: type[httpx2.TransportError] = getattr(httpx2, type(exc).__name__, httpx2.TransportError)
    raise kind(str(exc), request=request) from exc
