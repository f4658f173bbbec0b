"""`engine.pipe`: one writer, one reader, a bound between them; heartbeats in silence."""

from __future__ import annotations

import asyncio

from engine.answers import Answer
from engine.pipe import Heartbeat, Pipe

BEAT = b": x\n\n"


async def waits(task: asyncio.Future[None]) -> bool:
    """True if a task does not end although everything that can run has run."""
    for _ in range(10):
        await asyncio.sleep(0)
    return not task.done()


async def test_a_reader_takes_all_that_was_written_at_once() -> None:
    """A slow reader gets fewer and larger pieces."""
    pipe = Pipe(100)
    await pipe.write(b"a")
    await pipe.write(b"b")
    assert await pipe.first() is None
    assert await pipe.read() == b"ab"
    await pipe.write(b"c")
    pipe.end()
    assert await pipe.read() == b"c"
    assert await pipe.read() is None
    assert await pipe.read() is None


async def test_an_answer_comes_instead_of_a_stream() -> None:
    """The reader knows first which of the two it is."""
    pipe = Pipe(100)
    pipe.answer(Answer(200, b"{}"))
    assert await pipe.first() == Answer(200, b"{}")


async def test_an_answer_after_events_is_none() -> None:
    """What has begun as a stream stays one; the first of two answers counts."""
    pipe = Pipe(100)
    await pipe.write(b"a")
    pipe.answer(Answer(500, b"{}"))
    assert await pipe.first() is None
    assert await pipe.read() == b"a"
    assert await pipe.read() is None

    pipe = Pipe(100)
    pipe.answer(Answer(200, b"{}"))
    pipe.answer(Answer(500, b"{}"))
    assert await pipe.first() == Answer(200, b"{}")


async def test_a_writer_waits_while_too_much_is_unread() -> None:
    """E6: what is held is bounded by the limit and one write."""
    pipe = Pipe(10)
    await pipe.write(b"x" * 10)
    writing = asyncio.ensure_future(pipe.write(b"y"))
    assert await waits(writing)
    assert await pipe.read() == b"x" * 10 + b"y"
    async with asyncio.timeout(5):
        await writing


async def test_a_writer_is_freed_when_nobody_reads_any_more() -> None:
    """P3: and what it writes then is dropped."""
    pipe = Pipe(10)
    writing = asyncio.ensure_future(pipe.write(b"x" * 11))
    assert await waits(writing)
    pipe.abandon()
    async with asyncio.timeout(5):
        await writing
        await pipe.write(b"y" * 100)
        pipe.end()
        assert await pipe.read() is None


async def test_a_writer_that_ends_soon_does_not_wait() -> None:
    """P4: a worker that stops; what it wrote is still read."""
    pipe = Pipe(10)
    writing = asyncio.ensure_future(pipe.write(b"x" * 11))
    assert await waits(writing)
    pipe.release()
    async with asyncio.timeout(5):
        await writing
        await pipe.write(b"y")
    assert await pipe.read() == b"x" * 11 + b"y"


async def test_a_heartbeat_comes_only_in_silence() -> None:
    """R13: each `seconds` without a write, again and again."""
    pipe = Pipe(100)
    heart = Heartbeat(pipe, BEAT, 0.01)
    async with asyncio.timeout(5):
        assert await pipe.read() == BEAT
        assert await pipe.read() == BEAT
    heart.stop()


async def test_nothing_follows_the_end() -> None:
    """R1: no heartbeat behind [DONE], however slow the reader."""
    pipe = Pipe(100)
    await pipe.write(b"end")
    pipe.end()
    pipe.put(BEAT)
    await pipe.write(b"more")
    assert await pipe.read() == b"end"
    assert await pipe.read() is None
