"""A document on its way to what reads it."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from typing import IO

import pytest

from extproc.extraction import spool
from extproc.extraction.spool import spooled


async def test_a_file_is_closed_when_the_thread_that_writes_has_left_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """X4: another one's connection may have its descriptor from then on."""
    loop, write_all = asyncio.get_running_loop(), spool._write_all
    reached, goes_on, left = asyncio.Event(), threading.Event(), asyncio.Event()
    closed: list[bool] = []

    def slowly(file: IO[bytes], block: bytearray) -> None:
        loop.call_soon_threadsafe(reached.set)
        goes_on.wait(10)
        closed.append(file.closed)
        write_all(file, block)
        loop.call_soon_threadsafe(left.set)

    async def pieces() -> AsyncIterator[bytes]:
        yield bytes(2 << 20)

    async def written() -> None:
        async with spooled(pieces(), most=1 << 30, directory=None):
            raise AssertionError("it was cancelled before")

    monkeypatch.setattr(spool, "_write_all", slowly)
    async with asyncio.timeout(20):
        writing = asyncio.create_task(written())
        await reached.wait()
        writing.cancel()
        done, _ = await asyncio.wait([writing], timeout=0.05)
        goes_on.set()
        with pytest.raises(asyncio.CancelledError):
            await writing
        await left.wait()
    assert not done
    assert closed == [False]
