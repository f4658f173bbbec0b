"""Requests over connections that were kept, to servers that close them without a word.

llama.cpp does behind each stream: the next request, if it comes at once, finds the connection closing.
Envoy sends such a request again; without Envoy this does. No server has seen it, or none has begun to answer.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from types import SimpleNamespace

import aiohttp

# Each time another connection that was kept may prove to be closed.
_TIMES = 3


class Sending:
    """What became of one attempt; goes with the request as its `trace_request_ctx`."""

    def __init__(self) -> None:
        self.kept = False


def tracing() -> aiohttp.TraceConfig:
    """Return what a session needs for `sent`."""
    trace = aiohttp.TraceConfig()
    trace.on_connection_reuseconn.append(_reused)
    return trace


async def sent(
    send: Callable[[Sending], Awaitable[aiohttp.ClientResponse]],
) -> aiohttp.ClientResponse:
    """Send a request; again where it went over a kept connection that broke before any answer came.

    Raises what the last attempt raised: aiohttp's errors, OSError, TimeoutError.
    """
    for _ in range(_TIMES):
        sending = Sending()
        try:
            return await send(sending)
        except (aiohttp.ServerDisconnectedError, aiohttp.ClientOSError):
            if not sending.kept:
                raise
    return await send(Sending())


async def _reused(
    _session: aiohttp.ClientSession,
    context: SimpleNamespace,
    _params: aiohttp.TraceConnectionReuseconnParams,
) -> None:
    if isinstance(context.trace_request_ctx, Sending):
        context.trace_request_ctx.kept = True
