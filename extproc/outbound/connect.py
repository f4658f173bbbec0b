"""TCP connections to checked addresses: a host is resolved once, and what was checked is connected to.

The connection pool calls this for every connection that it opens, whatever made it open one: a request, a
redirect, an address that an SDK discovered. TLS and the Host header keep the name.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable

import httpcore2

from extproc.outbound.names import Names
from extproc.outbound.policy import OutboundPolicy, check_addresses

Resolve = Callable[[str, int], Awaitable[list[str]]]
"""Host and port to addresses, in the order in which they are to be tried; raises OSError."""

_MOST_ADDRESSES = 4


class GuardedBackend(httpcore2.AsyncNetworkBackend):
    """Opens connections as the policy allows; raises TargetRefused before any packet is sent."""

    def __init__(self, policy: OutboundPolicy, resolve: Resolve | None = None) -> None:
        self._policy = policy
        self._resolve = Names().resolve if resolve is None else resolve
        self._tcp = httpcore2.AnyIOBackend()

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[httpcore2.SOCKET_OPTION] | None = None,
    ) -> httpcore2.AsyncNetworkStream:
        """Connect to the first address that answers; `timeout` seconds are for all of them."""
        try:
            async with asyncio.timeout(timeout):
                return await self._connect(host, port, timeout, local_address, socket_options)
        except TimeoutError as exc:
            raise httpcore2.ConnectTimeout("the server did not answer in time") from exc

    async def connect_unix_socket(
        self,
        path: str,
        timeout: float | None = None,
        socket_options: Iterable[httpcore2.SOCKET_OPTION] | None = None,
    ) -> httpcore2.AsyncNetworkStream:
        """Refuse: no request names a socket."""
        raise httpcore2.ConnectError("sockets are not reached from here")

    async def sleep(self, seconds: float) -> None:
        """Wait between two attempts of the pool."""
        await asyncio.sleep(seconds)

    async def _connect(
        self,
        host: str,
        port: int,
        timeout: float | None,
        local_address: str | None,
        socket_options: Iterable[httpcore2.SOCKET_OPTION] | None,
    ) -> httpcore2.AsyncNetworkStream:
        try:
            found = await self._resolve(host, port)
        except OSError as exc:
            raise httpcore2.ConnectError(f"the host '{host}' cannot be resolved") from exc
        found = check_addresses(self._policy, host, found)[:_MOST_ADDRESSES]
        failure: Exception = httpcore2.ConnectError(f"the host '{host}' has no address")
        for address in found:
            try:
                return await self._tcp.connect_tcp(
                    address,
                    port,
                    # An address that swallows packets must leave time for the next one.
                    timeout=None if timeout is None else timeout / len(found),
                    local_address=local_address,
                    socket_options=socket_options,
                )
            except (httpcore2.ConnectError, httpcore2.ConnectTimeout) as exc:
                failure = exc
        raise failure
