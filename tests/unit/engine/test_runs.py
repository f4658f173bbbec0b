"""`engine.runs`: runs outlive their starters and end with the worker."""

from __future__ import annotations

import asyncio

import pytest

from engine.runs import Runs


async def test_a_run_goes_on_when_its_starter_is_cancelled() -> None:
    """P3: it belongs to nobody's exchange."""
    runs, gate, done, begun = Runs(), asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def run() -> None:
        await gate.wait()
        done.set()

    async def starter() -> None:
        runs.start(run())
        begun.set()
        await asyncio.Event().wait()

    starting = asyncio.ensure_future(starter())
    async with asyncio.timeout(5):
        await begun.wait()
        starting.cancel()
        await asyncio.wait([starting])
        gate.set()
        await done.wait()
        await runs.drain(5)
    assert len(runs) == 0


async def test_draining_waits_for_runs_that_end_in_time() -> None:
    """E4: nothing is cancelled that would have ended."""
    runs, ended = Runs(), []

    async def run() -> None:
        await asyncio.sleep(0)
        ended.append(True)

    runs.start(run())
    await runs.drain(5)
    assert ended == [True]


async def test_draining_stops_late_runs_and_waits_for_their_last_words() -> None:
    """P4: a stopped run still brings its response to an end."""
    runs, words = Runs(), []

    async def run() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)
            words.append("stored")

    runs.start(run())
    async with asyncio.timeout(5):
        await runs.drain(0)
    assert words == ["stored"]
    assert len(runs) == 0


async def test_draining_nothing_is_nothing() -> None:
    """No runs, no wait."""
    await Runs().drain(1000)


async def test_a_run_that_breaks_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    """No exception is lost."""
    runs = Runs()

    async def run() -> None:
        raise ZeroDivisionError("a bug")

    runs.start(run())
    await runs.drain(5)
    assert "a run broke" in caplog.text
    assert "a bug" in caplog.text
