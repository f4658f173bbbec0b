"""Several things at once: nothing of them runs on when the caller goes on."""

from __future__ import annotations

import asyncio

import pytest

from engine.errors import IndexUnavailable
from engine.together import both, together


async def _value(value: int) -> int:
    await asyncio.sleep(0)
    return value


async def test_results_come_in_the_order_of_what_was_asked() -> None:
    """Whichever is done first."""
    assert await together(_value(number) for number in range(5)) == [0, 1, 2, 3, 4]
    assert await together([]) == []
    assert await both(_value(1), _value(2)) == (1, 2)


async def test_the_first_that_fails_ends_the_others() -> None:
    """T2: its error comes alone, with the cause that it has, and none of the others runs on."""
    ended: list[str] = []
    waits = asyncio.Event()

    async def pending() -> int:
        try:
            waits.set()
            await asyncio.Event().wait()
        finally:
            ended.append("pending")
        return 0

    async def failing() -> int:
        await waits.wait()
        raise IndexUnavailable("away") from ValueError("why")

    async with asyncio.timeout(30):
        with pytest.raises(IndexUnavailable) as caught:
            await together([pending(), failing(), pending()])
    assert isinstance(caught.value.__cause__, ValueError)
    assert ended == ["pending", "pending"]


async def test_what_is_given_up_ends_all() -> None:
    """A caller that is cancelled leaves nothing behind."""
    ended: list[int] = []
    began = asyncio.Event()

    async def pending(number: int) -> None:
        try:
            began.set()
            await asyncio.Event().wait()
        finally:
            ended.append(number)

    whole = asyncio.create_task(together(pending(number) for number in range(3)))
    async with asyncio.timeout(30):
        await began.wait()
        whole.cancel()
        with pytest.raises(asyncio.CancelledError):
            await whole
    assert sorted(ended) == [0, 1, 2]
