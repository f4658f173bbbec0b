"""`engine.chore`: what a worker does beside its requests goes on, whatever happens to it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from engine.chore import Chore
from engine.errors import IndexUnavailable, StorageUnavailable

NEVER = 1000.0


def counted(*results: bool | Exception) -> tuple[list[int], Callable[[], Awaitable[bool]]]:
    """Work that returns or raises these, then False; and the count of how often it was done."""
    done: list[int] = []

    async def work() -> bool:
        done.append(1)
        result = results[len(done) - 1] if len(done) <= len(results) else False
        if isinstance(result, Exception):
            raise result
        return result

    return done, work


async def until(done: list[int], times: int) -> None:
    """Wait until it was done so often."""
    async with asyncio.timeout(5):
        while True:
            if len(done) >= times:
                return
            await asyncio.sleep(0.001)


async def test_it_is_done_again_at_once_while_there_is_more() -> None:
    """A long queue is not worked off at the pace of an idle one."""
    done, work = counted(True, True)
    chore = Chore(work, NEVER)
    chore.start()
    await until(done, 3)
    await chore.stop()
    assert len(done) == 3


async def test_it_is_done_again_after_a_while_or_when_woken() -> None:
    """P3: a response that was just queued does not wait for the next look."""
    done, work = counted()
    chore = Chore(work, NEVER)
    chore.start()
    await until(done, 1)
    chore.wake()
    await until(done, 2)
    await chore.stop()
    often, work = counted()
    chore = Chore(work, 0.001, jitter=0.5)
    chore.start()
    await until(often, 3)
    await chore.stop()


@pytest.mark.parametrize(
    "error", [StorageUnavailable("away"), IndexUnavailable("away"), ValueError("a bug")]
)
async def test_an_error_does_not_end_it(error: Exception) -> None:
    """P2: the store comes back."""
    done, work = counted(error, error)
    chore = Chore(work, 0.001)
    chore.start()
    await until(done, 4)
    await chore.stop()


@pytest.mark.parametrize(
    ("away", "period", "pause"),
    [
        (StorageUnavailable("no answer"), 600.0, 1.0),
        (IndexUnavailable("no answer"), 5.0, 5.0),
        (IndexUnavailable("no answer"), 600.0, 30.0),
    ],
)
async def test_it_is_tried_again_at_the_pace_of_what_is_away(
    away: StorageUnavailable, period: float, pause: float, caplog: pytest.LogCaptureFixture
) -> None:
    """P2: requests wait for the store; for the index nobody does, and each try may cost its deadline."""
    chore = Chore(counted(away)[1], period)
    assert await chore._once() == pause
    what = "vector index" if isinstance(away, IndexUnavailable) else "store"
    assert f"waits for the {what}: no answer" in caplog.text


async def test_what_it_has_in_hand_is_done_before_it_stops() -> None:
    """E4: a claim that was just made is not dropped."""
    gate, begun, ended = asyncio.Event(), asyncio.Event(), []

    async def work() -> bool:
        begun.set()
        await gate.wait()
        ended.append(True)
        return True

    chore = Chore(work, NEVER)
    chore.start()
    async with asyncio.timeout(5):
        await begun.wait()
        stopping = asyncio.ensure_future(chore.stop())
        await asyncio.sleep(0)
        assert not stopping.done()
        gate.set()
        await stopping
    assert ended == [True]


async def test_one_that_never_started_can_be_stopped() -> None:
    """A worker may be told to stop at any time."""
    await Chore(counted()[1], NEVER).stop()
