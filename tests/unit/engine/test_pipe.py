"""`engine.pipe`: one writer, one reader, a bound between them; heartbeats in silence."""

from __future__ import annotations

import asyncio

import pytest

from engine.answers import Answer
from engine.errors import NotFound
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
    await pipe.write(b"a", 0)
    await pipe.write(b"b", 0)
    assert await pipe.first() is None
    assert await pipe.read() == b"ab"
    await pipe.write(b"c", 0)
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
    await pipe.write(b"a", 0)
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
    await pipe.write(b"x" * 10, 0)
    writing = asyncio.ensure_future(pipe.write(b"y", 0))
    assert await waits(writing)
    assert await pipe.read() == b"x" * 10 + b"y"
    async with asyncio.timeout(5):
        await writing


async def test_a_writer_is_freed_when_nobody_reads_any_more() -> None:
    """P3: and what it writes then is dropped."""
    pipe = Pipe(10)
    writing = asyncio.ensure_future(pipe.write(b"x" * 11, 0))
    assert await waits(writing)
    pipe.abandon()
    async with asyncio.timeout(5):
        await writing
        await pipe.write(b"y" * 100, 0)
        pipe.end()
        assert await pipe.read() is None


async def test_a_writer_that_ends_soon_does_not_wait() -> None:
    """P4: a worker that stops; what it wrote is still read."""
    pipe = Pipe(10)
    writing = asyncio.ensure_future(pipe.write(b"x" * 11, 0))
    assert await waits(writing)
    pipe.release()
    async with asyncio.timeout(5):
        await writing
        await pipe.write(b"y", 0)
    assert await pipe.read() == b"x" * 11 + b"y"


async def test_a_pipe_that_spills_never_holds_up_its_writer() -> None:
    """E6: past the bound nothing is kept, and the reader learns where to go on in the log."""
    pipe = Pipe(10, spills=True)
    await pipe.write(b"a" * 6, 1)
    assert await pipe.read() == b"a" * 6
    await pipe.write(b"b" * 6, 3)
    assert not pipe.spilled
    await pipe.write(b"c" * 6, 4)
    pipe.put(BEAT)
    await pipe.write(b"d" * 6, 5)
    assert not pipe.unread
    assert await pipe.first() is None
    assert await pipe.read() is None
    assert (pipe.spilled, pipe.taken) == (True, 1)


async def test_one_write_over_the_bound_is_no_slow_reader() -> None:
    """E6: a terminal event may be larger than the bound; it spills only where something was unread."""
    pipe = Pipe(10, spills=True)
    await pipe.write(b"x" * 11, 0)
    assert not pipe.spilled
    assert await pipe.read() == b"x" * 11


async def test_what_is_in_no_log_does_not_spill() -> None:
    """R1: after `release` the writer says what only it can say."""
    pipe = Pipe(10, spills=True)
    await pipe.write(b"x" * 11, 0)
    pipe.release()
    await pipe.write(b"failed", 1)
    assert await pipe.read() == b"x" * 11 + b"failed"


async def test_the_readers_leaving_is_told_once_and_only_before_the_end() -> None:
    """P3: what it means is the run's to say."""
    told = []
    pipe = Pipe(10)
    pipe.on_leave = lambda: told.append(1)
    pipe.abandon()
    pipe.end()
    pipe.abandon()
    assert told == [1]


async def test_a_refusal_is_raised_to_the_reader() -> None:
    """R16: as the error that it is, so that one place makes answers of errors."""
    pipe = Pipe(10)
    pipe.refuse(NotFound("x"))
    with pytest.raises(NotFound):
        await pipe.first()


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
    await pipe.write(b"end", 0)
    pipe.end()
    pipe.put(BEAT)
    await pipe.write(b"more", 0)
    assert await pipe.read() == b"end"
    assert await pipe.read() is None
