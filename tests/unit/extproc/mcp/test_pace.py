"""`extproc.mcp.pace`: how often a server may have itself asked again (X5)."""

from __future__ import annotations

import asyncio

import pytest

from extproc.mcp.pace import Pace

PAUSE = 5.0


class Hand(asyncio.SelectorEventLoop):
    """A loop whose clock is moved by hand."""

    now = 0.0

    def time(self) -> float:
        return self.now


def waits(*times: float) -> list[bool]:
    """Return which of the requests at these times have to wait, where three a minute are free."""

    async def ask() -> list[bool]:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, Hand)
        pace = Pace(3, PAUSE)
        waited = []
        for now in times:
            loop.now = now
            asked = asyncio.ensure_future(pace.wait())
            await asyncio.sleep(0)
            waited.append(not asked.done())
            loop.now = now + PAUSE
            await asked
        return waited

    with asyncio.Runner(loop_factory=Hand) as runner:
        return runner.run(ask())


@pytest.mark.parametrize(
    ("times", "expected"),
    [
        ((0, 0, 0, 0, 6, 12), [False, False, False, True, True, True]),
        ((0, 1, 2, 61), [False] * 4),
        ((0, 30, 60, 90, 120, 150, 180), [False] * 7),
        ((0, 20, 40, 59, 61, 80), [False, False, False, True, True, True]),
    ],
)
def test_what_comes_too_often_waits(times: tuple[float, ...], expected: list[bool]) -> None:
    """X5: a server that lets streams last does not notice."""
    assert waits(*times) == expected
