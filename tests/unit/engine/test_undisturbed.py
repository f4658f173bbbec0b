"""Work that a cancel waits for."""

from __future__ import annotations

import asyncio

import pytest

from engine.undisturbed import undisturbed


async def test_without_a_cancel_it_is_as_awaited() -> None:
    """What it returns is returned, what it raises is raised."""

    async def one() -> int:
        return 1

    async def broken() -> None:
        raise ValueError("broken")

    assert await undisturbed(one()) == 1
    with pytest.raises(ValueError, match="broken"):
        await undisturbed(broken())


@pytest.mark.parametrize("breaks", [False, True])
async def test_however_often_it_is_cancelled_it_ends_first(breaks: bool) -> None:
    """And the cancel is what is raised."""
    begun, free, ended = asyncio.Event(), asyncio.Event(), False

    async def work() -> None:
        nonlocal ended
        begun.set()
        await free.wait()
        ended = True
        if breaks:
            raise ValueError("broken")

    task = asyncio.create_task(undisturbed(work()))
    await begun.wait()
    for _ in range(3):
        task.cancel()
        await asyncio.sleep(0)
        await asyncio.sleep(0)
    assert not task.done()
    free.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert ended
