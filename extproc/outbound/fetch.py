"""Fetches what a request names by its URL (`file_url`), under the guard (rules X3, X5)."""

from __future__ import annotations

import asyncio

import httpx2

from engine.errors import InvalidRequest, TargetRefused
from extproc.outbound.policy import check_url
from extproc.outbound.transport import GuardedTransport

_SECONDS = 30.0


class Fetcher:
    """Fetches through one guarded transport, which somebody else closes."""

    def __init__(self, transport: GuardedTransport) -> None:
        self._transport = transport

    async def fetch(self, url: str, most: int, param: str) -> bytes:
        """Return the body behind a URL; raises TargetRefused or InvalidRequest with `param`."""
        check_url(self._transport.policy, url, param)
        try:
            async with asyncio.timeout(_SECONDS):
                return await self._body(url, most, param)
        except TargetRefused as error:
            raise TargetRefused(error.message, param=param) from error
        except TimeoutError as error:
            raise _failed("it did not answer in time", param) from error
        except (httpx2.HTTPError, httpx2.StreamError) as error:
            raise _failed(str(error) or type(error).__name__, param) from error

    async def _body(self, url: str, most: int, param: str) -> bytes:
        request = httpx2.Request("GET", url, headers={"accept": "*/*"})
        response = await self._transport.handle_async_request(request)
        try:
            if response.status_code != 200:
                raise _failed(f"it answered with HTTP {response.status_code}", param)
            data = bytearray()
            async for piece in response.aiter_raw():
                data += piece
                if len(data) > most:
                    raise _failed(f"it is larger than {most} bytes", param)
            return bytes(data)
        finally:
            await response.aclose()


def _failed(why: str, param: str) -> InvalidRequest:
    return InvalidRequest(
        f"The file behind '{param}' could not be fetched: {why}.",
        param=param,
        code="file_url_failed",
    )
