"""A client that reads slowly holds up nobody, and memory stays bounded (rules E6, X5)."""

from __future__ import annotations

import asyncio

import pytest

from engine import responses
from engine.errors import StorageUnavailable
from engine.pipe import Pipe
from tests.support import replies
from tests.support.engine_rig import Rig, final, small
from tests.support.fake_model import Break, FakeModel, Hang, frames_of
from tests.support.fake_reply import FakeReply
from tests.support.replies import text
from tests.support.stream_rules import check_stream

WORDS = frames_of(replies.stream(text(*(f"word {number} " for number in range(500)))))
TIGHT = small(buffer_bytes=2000, log_bytes=1000)


async def finished(rig: Rig) -> None:
    """Wait until the response is saved, whatever its client does."""
    async with asyncio.timeout(5):
        await rig.store.reached["finish"].wait()
    await rig.settled()


async def test_a_slow_reader_of_a_stored_stream_reads_on_in_the_log() -> None:
    """E6: model, log and saving do not wait; the client gets the same stream, byte for byte."""
    slow = asyncio.Event()
    rig = Rig(FakeModel(*WORDS), limits=TIGHT)
    reply = FakeReply(slow)
    running = rig.start(reply, stream=True)
    await finished(rig)
    stored = await rig.the_stored()
    assert stored.status == "completed"
    assert not reply.raw

    slow.set()
    await running

    assert reply.ended
    assert reply.raw == await rig.log(stored.id)
    assert final(check_stream(reply.raw)) == await rig.retrieve(stored.id)


async def test_a_slow_reader_catches_up_while_the_model_goes_on() -> None:
    """P6: no gap and no duplicate where it changes from the buffer to the log."""
    slow, gate = asyncio.Event(), asyncio.Event()
    limits = small(buffer_bytes=2000, log_interval=0.001)
    rig = Rig(FakeModel(*WORDS[:300], Hang(gate), *WORDS[300:]), limits=limits)
    reply = FakeReply(slow)
    running = rig.start(reply, stream=True)
    async with asyncio.timeout(5):
        await rig.model.silent.wait()
    slow.set()
    await reply.until(b"output_text.delta", 2 * 200)
    gate.set()
    await running

    assert reply.raw == await rig.log((await rig.the_stored()).id)


async def test_what_waits_for_a_slow_reader_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """X5: however much the model writes, and whoever keeps it."""
    rig = Rig(FakeModel(*WORDS), limits=TIGHT)
    largest = 0

    class Watched(Pipe):
        async def write(self, frames: bytes, last: int) -> None:
            nonlocal largest
            await super().write(frames, last)
            largest = max(largest, self._size)

    monkeypatch.setattr(responses, "Pipe", Watched)
    running = rig.start(FakeReply(asyncio.Event()), stream=True)
    await finished(rig)

    assert 0 < largest < 2000 + 1000
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


async def test_a_slow_reader_hears_of_a_failure_too() -> None:
    """R1: the terminal event is in the log as well."""
    slow = asyncio.Event()
    rig = Rig(FakeModel(*WORDS[:400], Break()), limits=TIGHT)
    reply = FakeReply(slow)
    running = rig.start(reply, stream=True)
    await finished(rig)
    slow.set()
    await running

    assert final(check_stream(reply.raw))["status"] == "failed"


async def test_a_slow_reader_hears_that_nothing_could_be_saved() -> None:
    """P1, R1: no log has these last events, so they are kept for it, over the bound if need be."""
    few = frames_of(replies.stream(text("a" * 300, "b" * 300)))
    whole = (await Rig(FakeModel(*few)).create(stream=True)).raw
    slow = asyncio.Event()
    rig = Rig(FakeModel(*few), limits=small(buffer_bytes=whole.index(b"event: response.completed")))
    rig.store.faults["finish"] = StorageUnavailable("gone")
    reply = FakeReply(slow)
    running = rig.start(reply, stream=True)
    await finished(rig)
    slow.set()
    await running

    assert final(check_stream(reply.raw))["status"] == "failed"


async def test_a_slow_reader_that_leaves_the_log_is_a_client_that_left() -> None:
    """P3: its response goes on, within the limit."""
    gate = asyncio.Event()
    rig = Rig(FakeModel(*WORDS[:300], Hang(gate), *WORDS[300:]), limits=TIGHT)
    slow = asyncio.Event()
    reply = FakeReply(slow)
    running = rig.start(reply, stream=True)
    async with asyncio.timeout(5):
        await rig.model.silent.wait()
    slow.set()
    await reply.until(b"output_text.delta", 2 * 100)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    gate.set()
    await rig.settled()

    assert (await rig.the_stored()).status == "completed"
    assert rig.detached.runs == 1
