"""`extproc.outbound.connect`: the last place before a packet leaves, without the checks before it (X3)."""

from __future__ import annotations

import asyncio
import time

import httpcore2
import pytest

from engine.errors import TargetRefused
from extproc.outbound.connect import GuardedBackend
from extproc.outbound.policy import OutboundPolicy
from tests.support.trap import trap


@pytest.mark.parametrize(
    "host",
    ["127.0.0.1", "::1", "2130706433", "0x7f.1", "127.1", "0", "::ffff:127.0.0.1", "localhost"],
)
async def test_what_the_resolver_reads_as_an_inner_address_is_not_connected_to(host: str) -> None:
    """X3: the resolver takes more spellings than any check of text foresees."""
    async with asyncio.timeout(10), trap() as waiting:
        with pytest.raises(TargetRefused):
            await GuardedBackend(OutboundPolicy()).connect_tcp(host, waiting.port)

        await waiting.assert_works_and_saw_nothing()


async def test_a_resolver_that_does_not_answer_is_waited_for_as_long_as_for_a_server() -> None:
    """Every wait has a deadline."""

    async def never(_host: str, _port: int) -> list[str]:
        await asyncio.Event().wait()
        return []

    began = time.monotonic()
    with pytest.raises(httpcore2.ConnectTimeout):
        await GuardedBackend(OutboundPolicy(), never).connect_tcp("slow.test", 443, timeout=0.05)
    assert time.monotonic() - began < 5


async def test_a_name_without_addresses_and_a_socket_are_errors() -> None:
    """X3: nothing but TCP to a checked address."""

    async def nothing(_host: str, _port: int) -> list[str]:
        return []

    backend = GuardedBackend(OutboundPolicy(), nothing)
    with pytest.raises(httpcore2.ConnectError, match="no address"):
        await backend.connect_tcp("empty.test", 443)
    with pytest.raises(httpcore2.ConnectError, match="sockets"):
        await backend.connect_unix_socket("/run/docker.sock")
