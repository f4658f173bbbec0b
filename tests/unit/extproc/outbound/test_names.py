"""`extproc.outbound.names`: a name that resolves slowly is its tenant's trouble (rule X5)."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator

import httpcore2
import pytest

from extproc.admission import Admission
from extproc.messages import Head
from extproc.outbound.connect import GuardedBackend
from extproc.outbound.names import LOOKUPS, LOOKUPS_OF_ONE, Names, ask_system
from extproc.outbound.policy import OutboundPolicy

DEADLINE = 20
HEADS = Admission(body_limit=0, forward_authorization=False)
"""Learns whose a request is, and with it whose names it has."""


class SlowNames:
    """A resolver whose names take until `end`; others are there at once."""

    def __init__(self) -> None:
        self.end = threading.Event()
        self.asked: list[str] = []
        self.most = 0
        self._now = 0
        self._count = threading.Lock()

    def look_up(self, host: str, _port: int) -> list[str]:
        with self._count:
            self.asked.append(host)
            self._now += 1
            self.most = max(self.most, self._now)
        if host.endswith(".slow.test"):
            self.end.wait(60)
        with self._count:
            self._now -= 1
        return ["192.0.2.1"]


@pytest.fixture
def slow() -> Iterator[SlowNames]:
    names = SlowNames()
    yield names
    names.end.set()


async def _as(tenant: str, names: Names, host: str) -> list[str]:
    HEADS.caller(tenant, Head("POST", "/v1/responses", {}, False))
    return await names.resolve(host, 443)


def _ask(tenant: str, names: Names, hosts: list[str]) -> list[asyncio.Task[list[str]]]:
    return [asyncio.create_task(_as(tenant, names, host)) for host in hosts]


def _slow_ones(count: int) -> list[str]:
    return [f"n{number}.slow.test" for number in range(count)]


async def test_slow_names_of_one_tenant_do_not_stop_anothers(slow: SlowNames) -> None:
    """X5: as many as a request may declare servers, and another tenant's name is found meanwhile."""
    names = Names(slow.look_up)
    asked = _ask("greedy", names, _slow_ones(512))
    async with asyncio.timeout(DEADLINE):
        [found] = _ask("other", names, ["quick.test"])
        assert await found == ["192.0.2.1"]
        assert len(slow.asked) <= LOOKUPS_OF_ONE + 1
        slow.end.set()
        await asyncio.gather(*asked)


async def test_a_lookup_that_is_given_up_keeps_its_place_and_one_that_waited_is_forgotten(
    slow: SlowNames,
) -> None:
    """X5: there are never more threads than that, and what nobody waits for is not looked up later."""
    names = Names(slow.look_up)
    async with asyncio.timeout(DEADLINE):
        given_up = _ask("greedy", names, _slow_ones(12))
        await _as("other", names, "quick.test")
        for task in given_up:
            task.cancel()
        await asyncio.gather(*given_up, return_exceptions=True)
        [late] = _ask("greedy", names, ["late.test"])
        await _as("other", names, "quick.test")
        assert "late.test" not in slow.asked
        slow.end.set()
        assert await late == ["192.0.2.1"]
    assert not {f"n{number}.slow.test" for number in range(LOOKUPS_OF_ONE, 12)} & set(slow.asked)


async def test_all_lookups_together_are_bounded(slow: SlowNames) -> None:
    """X5: of however many tenants."""
    names = Names(slow.look_up)
    tenants = LOOKUPS // LOOKUPS_OF_ONE + 1
    async with asyncio.timeout(DEADLINE):
        asked = [
            task
            for tenant in range(tenants)
            for task in _ask(f"t{tenant}", names, _slow_ones(LOOKUPS_OF_ONE))
        ]
        await asyncio.sleep(0)  # each of them has got its place, or waits for one
        slow.end.set()
        await asyncio.gather(*asked)
    assert slow.most <= LOOKUPS
    assert len(slow.asked) == tenants * LOOKUPS_OF_ONE


@pytest.mark.parametrize("host", ["a" * 64 + ".test", "a..test"])
async def test_a_name_that_is_none_is_an_error_of_the_connection(host: str) -> None:
    """X3: also one that no name server can be asked for."""
    async with asyncio.timeout(DEADLINE):
        with pytest.raises(httpcore2.ConnectError, match="cannot be resolved"):
            await GuardedBackend(OutboundPolicy()).connect_tcp(host, 443)


def test_the_system_is_asked() -> None:
    """X3: addresses come as text, for the policy to judge."""
    assert set(ask_system("localhost", 443)) <= {"127.0.0.1", "::1"}
