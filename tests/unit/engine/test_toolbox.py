"""`engine.toolbox`: calls of all runs of a worker share its slots (rule T2)."""

from __future__ import annotations

import asyncio

from engine.account import Account
from engine.response.effects import ToolCall
from engine.response.inputs import ToolEnded
from engine.toolbox import Toolbox
from tests.support.engine_rig import Rig, no_provider, small
from tests.support.fake_model import FakeModel
from tests.support.fake_tools import FakeProvider

DEADLINE = 10


async def _run(toolbox: Toolbox, tenant: str, provider: FakeProvider, calls: int) -> list[str]:
    """Run so many calls of one response; returns what came back."""
    texts: list[str] = []

    async def ended(end: ToolEnded) -> None:
        texts.append(end.outcome.text)

    asked = [ToolCall(f"{tenant}{n}", provider.label, "look", b"{}") for n in range(calls)]
    await toolbox.run([provider], asked, ended, Account(f"resp_{tenant}", tenant))
    return texts


async def _settled() -> None:
    """Let every task come to where it waits for something."""
    for _ in range(20):
        await asyncio.sleep(0)


async def test_a_tenant_with_many_calls_does_not_keep_anothers_waiting() -> None:
    """T2: it has all slots and a line; the first one that it gives back is the other's."""
    toolbox = Toolbox(no_provider, small(tool_calls=2), Rig(FakeModel()).registry)
    ends, stays = asyncio.Event(), asyncio.Event()
    brief, long = FakeProvider("brief", gate=ends), FakeProvider("long", gate=stays)
    quick = FakeProvider("quick")
    async with asyncio.timeout(DEADLINE), asyncio.TaskGroup() as tasks:
        tasks.create_task(_run(toolbox, "greedy", brief, 1))
        tasks.create_task(_run(toolbox, "greedy", long, 5))
        await _settled()
        assert brief.under_way + long.under_way == 2
        other = tasks.create_task(_run(toolbox, "other", quick, 3))
        await _settled()
        ends.set()
        assert await other == ["look {}"] * 3
        assert long.most <= 2
        stays.set()
    assert len(long.calls) == 5


async def test_one_tenant_alone_has_all_slots() -> None:
    """T2: where nobody else wants one."""
    toolbox = Toolbox(no_provider, small(tool_calls=3), Rig(FakeModel()).registry)
    gate = asyncio.Event()
    provider = FakeProvider("s", gate=gate)
    async with asyncio.timeout(DEADLINE), asyncio.TaskGroup() as tasks:
        tasks.create_task(_run(toolbox, "t", provider, 6))
        await _settled()
        gate.set()
    assert (provider.most, len(provider.calls)) == (3, 6)
