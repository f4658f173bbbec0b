"""The way to the model server: HTTP to Envoy's model listener, or without Envoy to the server.

aiohttp, not httpx: the latter collapses at half the token rate (docs/adr/0004). Retries of what was not
answered, load balancing and limits are Envoy's; without it, only what met a closing connection is sent
again.
"""

from __future__ import annotations

import asyncio
import io
import ssl
from collections.abc import AsyncIterator, Awaitable, Mapping
from pathlib import Path
from typing import Self

import aiohttp

from engine.errors import UpstreamFailed
from engine.ports import ModelAnswer
from extproc.envoy.endpoint import ModelEndpoint
from extproc.kept_connections import Sending, sent, tracing

_BASE_HEADERS = {
    "content-type": "application/json",
    "accept": "text/event-stream, application/json",
    # A compressed stream is a delayed one.
    "accept-encoding": "identity",
}


# Below the 5 s after which uvicorn, and so most model servers, close an idle connection: a turn must not
# meet one that is being closed: that would be a retry, or without Envoy a failure.
_IDLE_SECONDS = 4.0

# What may follow a terminal event: `[DONE]`, and the end of the body.
_TRAILER_BYTES = 64 * 2**10
TRAILER_SECONDS = 0.25

# What a server tells about itself: a list of models may be long, and nothing waits for it.
_TOLD_BYTES = 4 * 2**20
_TOLD_SECONDS = 10.0


class HttpModelAnswer:
    """An answer whose head has come."""

    def __init__(self, response: aiohttp.ClientResponse) -> None:
        self._response = response
        self.status = response.status
        self.media_type = response.content_type.lower()
        self.retry_after = retry_seconds(response.headers.get("retry-after"))

    async def chunks(self) -> AsyncIterator[bytes]:
        """Yield the body as it arrives, all that has arrived at once; raises UpstreamFailed."""
        content = self._response.content
        try:
            while chunk := await content.readany():
                yield chunk
        except (aiohttp.ClientError, OSError, TimeoutError) as exc:
            raise _broken(exc) from exc

    async def read(self, limit: int) -> bytes:
        """Return the body, at most `limit` bytes of it; raises UpstreamFailed."""
        pieces: list[bytes] = []
        size = 0
        async for chunk in self.chunks():
            pieces.append(chunk)
            size += len(chunk)
            if size >= limit:
                break
        return b"".join(pieces)[:limit]

    async def finish(self) -> None:
        """Read what is left behind the terminal event, if it comes soon, so that the connection is kept."""
        left = _TRAILER_BYTES
        try:
            async with asyncio.timeout(TRAILER_SECONDS):
                while left > 0 and (chunk := await self._response.content.readany()):
                    left -= len(chunk)
        except (aiohttp.ClientError, OSError, TimeoutError):
            pass
        finally:
            self.close()

    def close(self) -> None:
        """Keep the connection if the body has ended; else cut it, which aborts the generation."""
        if self._response.content.at_eof():
            self._response.release()
        else:
            self._response.close()


class HttpModelClient:
    """Sends turns to `endpoint`; times in seconds.

    `trusted` are the authorities that may vouch for an https server (PEM); None: the system's.
    """

    def __init__(
        self,
        endpoint: ModelEndpoint,
        *,
        connect: float,
        silence: float,
        api_key: str | None,
        trusted: Path | None = None,
    ) -> None:
        self._url = endpoint.url
        self._direct = endpoint.socket is None
        self._session = aiohttp.ClientSession(
            connector=connector(endpoint, trusted),
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=connect, sock_read=silence),
            headers=turn_headers(api_key),
            cookie_jar=aiohttp.DummyCookieJar(),
            trace_configs=[tracing()] if self._direct else None,
        )

    async def __aenter__(self) -> Self:
        """Return the client; it opens connections as they are needed."""
        return self

    async def __aexit__(self, *_: object) -> None:
        """Close all connections."""
        await self._session.close()

    async def call(self, path: str, body: bytes, headers: Mapping[str, str]) -> ModelAnswer:
        """POST one turn and return when the status is known; raises UpstreamFailed."""

        def send(sending: Sending) -> Awaitable[aiohttp.ClientResponse]:
            return self._session.post(
                f"{self._url}{path}",
                # As a file: a body above 1 MiB is then written in pieces.
                data=io.BytesIO(body),
                headers=headers,
                allow_redirects=False,
                trace_request_ctx=sending,
            )

        try:
            response = await (sent(send) if self._direct else send(Sending()))
        except (aiohttp.ClientError, OSError, TimeoutError) as exc:
            raise _broken(exc) from exc
        return HttpModelAnswer(response)

    async def get(self, path: str) -> tuple[int, bytes]:
        """Return status and body of what the server tells about itself; raises UpstreamFailed."""
        try:
            async with asyncio.timeout(_TOLD_SECONDS):
                url = f"{self._url}{path}"
                async with self._session.get(url, allow_redirects=False) as answer:
                    return answer.status, await HttpModelAnswer(answer).read(_TOLD_BYTES)
        except (aiohttp.ClientError, OSError, TimeoutError) as exc:
            raise _broken(exc) from exc


class NoModelClient:
    """No way to the model server but the clients' own requests (`model.via = "request"`)."""

    async def __aenter__(self) -> Self:
        """Return it."""
        return self

    async def __aexit__(self, *_: object) -> None:
        """There is nothing to close."""

    async def call(self, path: str, body: bytes, headers: Mapping[str, str]) -> ModelAnswer:
        """Raise UpstreamFailed."""
        raise UpstreamFailed(
            "The gateway cannot call the model server here: its settings leave only the request itself."
        )


def turn_headers(api_key: str | None) -> Mapping[str, str]:
    """Return the headers of every model turn, whichever way it goes."""
    if api_key is None:
        return _BASE_HEADERS
    return {**_BASE_HEADERS, "authorization": f"Bearer {api_key}"}


def connector(endpoint: ModelEndpoint, trusted: Path | None) -> aiohttp.BaseConnector:
    """Return what connects to an endpoint; `trusted` as for the client."""
    if endpoint.socket is not None:
        return aiohttp.UnixConnector(str(endpoint.socket), limit=0, keepalive_timeout=_IDLE_SECONDS)
    if not endpoint.tls:
        return aiohttp.TCPConnector(limit=0, keepalive_timeout=_IDLE_SECONDS)
    tls = ssl.create_default_context(cafile=trusted)
    return aiohttp.TCPConnector(limit=0, keepalive_timeout=_IDLE_SECONDS, ssl=tls)


def _broken(exc: Exception) -> UpstreamFailed:
    if isinstance(exc, TimeoutError):
        return UpstreamFailed("The model server was silent for too long.")
    if isinstance(exc, aiohttp.ClientConnectorError):
        return UpstreamFailed("The model server could not be reached.")
    return UpstreamFailed("The connection to the model server broke off.", passing=True)


def retry_seconds(retry_after: str | None) -> int | None:
    """Return `Retry-After` in seconds; its form as a date is not worth the trouble."""
    text = retry_after or ""
    return int(text) if text.isascii() and text.isdigit() and len(text) < 10 else None
