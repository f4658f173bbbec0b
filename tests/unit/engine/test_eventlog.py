"""`engine.eventlog`: what is logged is what was released, in few writes (rules P2, P6)."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.errors import EngineError, LeaseLost, StorageUnavailable
from engine.eventlog import EventLog
from engine.limits import Limits
from engine.ports import EventBatch, Lease
from tests.support import replies
from tests.support.engine_rig import Rig, final, small, turns
from tests.support.fake_model import FakeModel, Hang, frames_of
from tests.support.fake_reply import FakeReply
from tests.support.faulty_store import FaultyStore
from tests.support.frames import numbered, split_every
from tests.support.replies import reasoning, text
from tests.support.stream_rules import check_stream

WORDS = frames_of(replies.stream(reasoning("hm"), text(*(f"word {n} " for n in range(60)))))
LEASE = Lease("default", "resp_1", 1)


class Kept(FaultyStore):
    """Keeps what is appended, and takes as many steps of the loop for it as it is told."""

    def __init__(self, steps: int = 0) -> None:
        super().__init__()
        self.appended: list[EventBatch] = []
        self._steps = steps

    async def append(self, lease: Lease, batch: EventBatch) -> None:
        await self._reach("append")
        for _ in range(self._steps):
            await asyncio.sleep(0)
        self.appended.append(batch)


class Logged:
    """A log over a store of its own, with what it told."""

    def __init__(self, limits: Limits | None = None, *, steps: int = 0, first: int = 0) -> None:
        self.store = Kept(steps)
        self.notified: list[str] = []
        self.failed: list[EngineError] = []
        self.log = EventLog(
            self.store,
            limits if limits is not None else small(),
            first=first,
            notify=self.notified.append,
            failed=self.failed.append,
        )
        self._next = first

    def add(self, size: int, events: int = 1) -> None:
        self._next += events
        self.log.add(b"x" * size, self._next - 1)

    @property
    def numbers(self) -> list[tuple[int, int]]:
        return [(batch.first, batch.last) for batch in self.store.appended]


# -- beside a stream ---------------------------------------------------------------------------------


@settings(max_examples=40, deadline=None, derandomize=True)
@given(
    log_bytes=st.sampled_from([1, 200, 1000, 5000, 1 << 20]),
    log_interval=st.sampled_from([0.0, 0.001, 10.0]),
    chunk=st.sampled_from([40, 300, 2000, 100_000]),
)
def test_the_log_is_what_the_client_saw(log_bytes: int, log_interval: float, chunk: int) -> None:
    """P6: byte for byte, whatever is written at once, whatever comes at once; no gap, no duplicate."""

    async def run() -> None:
        script = split_every([b"".join(WORDS)], chunk)
        limits = small(log_bytes=log_bytes, log_interval=log_interval)
        rig = Rig(FakeModel(*script), limits=limits)
        reply = await rig.create(stream=True)
        stored = await rig.the_stored()
        assert await rig.log(stored.id) == reply.raw
        check_stream(reply.raw)
        assert rig.notified.count(stored.id) >= 1
        await rig.settled()

    asyncio.run(run())


async def test_events_are_released_before_they_are_logged() -> None:
    """No token waits for the store, and the log has it soon after."""
    gate = asyncio.Event()
    rig = Rig(FakeModel(*WORDS[:12], Hang(gate), *WORDS[12:]), limits=small(log_interval=0.02))
    rig.store.holds["append"] = asyncio.Event()
    reply = FakeReply()
    running = rig.start(reply, stream=True)
    await reply.until(b"output_text.delta", 2)
    async with asyncio.timeout(5):
        await rig.store.reached["append"].wait()
    seen = reply.raw
    rig.store.holds["append"].set()
    stored = await rig.the_stored()
    await rig.until(lambda: rig.notified)

    assert (await rig.log(stored.id)).startswith(seen)
    gate.set()
    await running


async def test_a_response_that_is_not_streamed_or_not_stored_has_no_log() -> None:
    """P5: nothing to resume, nothing kept."""
    kinds: list[dict[str, Any]] = [{"stream": False}, {"stream": True, "store": False}]
    for fields in kinds:
        rig = Rig(FakeModel(*WORDS), limits=small(log_bytes=1))
        await rig.create(**fields)
        assert not rig.store.reached["append"].is_set()
        for stored in await rig.stored():
            read = await rig.store.read_events("default", stored.id, after=-1, limit=1)
            assert read is not None
            assert not read.batches


@pytest.mark.parametrize("again", [False, True])
async def test_a_stream_goes_on_while_the_store_is_away(again: bool) -> None:
    """P2: events wait in memory; back in time, nothing is missing, else the response has failed."""
    gate = asyncio.Event()
    rig = Rig(
        FakeModel(*WORDS[:20], Hang(gate), *WORDS[20:]),
        limits=small(log_bytes=1, save_wait=5.0 if again else 0.0),
    )
    reply = FakeReply()
    running = rig.start(reply, stream=True)
    rig.store.faults["append"] = StorageUnavailable("restarting")
    await reply.until(b"output_text.delta", 2)
    gate.set()
    await reply.until(b"response.output_item.done", 2)
    if again:
        del rig.store.faults["append"]
    await running

    response = final(check_stream(reply.raw))
    assert response["status"] == ("completed" if again else "failed")
    stored = await rig.the_stored()
    if again:
        assert await rig.log(stored.id) == reply.raw
    else:
        # P1: nobody was told of a success; who finds the run without a renewed lease ends it.
        assert stored.status == "in_progress"


async def test_a_log_that_meets_a_bug_ends_the_response_in_order(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """R1: with an error, not with a cut."""
    rig = Rig(FakeModel(*WORDS, Hang(asyncio.Event())), limits=small(log_bytes=1))
    rig.model.steps = (*WORDS[:20], Hang(asyncio.Event()))
    rig.store.faults["append"] = ZeroDivisionError("a bug")

    events = await rig.stream()

    assert final(events)["status"] == "failed"
    assert rig.model.aborted.is_set()
    assert "could not be written" in caplog.text


async def test_the_model_waits_where_too_many_events_wait_for_the_store() -> None:
    """X5: memory stays bounded while the store is away, and the run fails when it stays away."""
    limits = small(log_bytes=1, response_bytes=3000, save_wait=0.0)
    rig = Rig(FakeModel(*WORDS[:30], Hang(asyncio.Event())), limits=limits)
    rig.store.faults["append"] = StorageUnavailable("gone")

    events = await rig.stream()

    assert final(events)["status"] == "failed"
    assert events[-2]["code"] == "storage_unavailable"
    assert rig.model.aborted.is_set()


# -- on its own --------------------------------------------------------------------------------------


async def test_one_write_is_in_flight_and_takes_all_that_gathered() -> None:
    """What a slow store costs is larger batches."""
    logged = Logged(small(log_bytes=10, log_interval=10.0))
    logged.store.holds["append"] = gate = asyncio.Event()
    logged.log.open(LEASE)
    for _ in range(10):
        logged.add(10)
        await turns()
    gate.set()
    await turns()

    assert logged.numbers == [(0, 0), (1, 9)]
    assert logged.notified == [LEASE.response_id] * 2
    logged.log.close()


async def test_few_events_are_written_after_the_interval() -> None:
    """And nothing is written before the response is accepted."""
    logged = Logged(small(log_bytes=1000, log_interval=0.01))
    logged.add(10, events=2)
    await turns()
    assert logged.numbers == []
    logged.log.open(LEASE)
    async with asyncio.timeout(5):
        await logged.store.reached["append"].wait()
    await turns()
    assert logged.numbers == [(0, 1)]
    logged.log.close()


async def test_the_end_waits_for_what_is_in_flight_and_takes_the_rest() -> None:
    """P6: the tail begins where the last batch ended; nothing is written any more."""
    logged = Logged(small(log_bytes=10, log_interval=0.0), first=7)
    logged.store.holds["append"] = gate = asyncio.Event()
    logged.log.open(LEASE)
    logged.add(10)
    await turns()
    logged.add(3)
    ending = asyncio.ensure_future(logged.log.end(EventBatch(9, 9, b"end"), 5.0))
    await turns()
    assert not ending.done()
    gate.set()

    assert await ending == EventBatch(8, 9, b"xxxend")
    await turns()
    assert logged.numbers == [(7, 7)]


async def test_the_end_does_not_wait_for_ever() -> None:
    """P2: the outcome of what is in flight is unknown, so nothing can be written behind it."""
    logged = Logged(small(log_bytes=1))
    logged.store.holds["append"] = asyncio.Event()
    logged.log.open(LEASE)
    logged.add(3)
    await turns()
    with pytest.raises(StorageUnavailable):
        await logged.log.end(EventBatch(1, 1, b"end"), 0.01)
    logged.log.close()
    await turns()
    assert logged.numbers == []


async def test_a_lost_lease_ends_the_log_and_is_told_once() -> None:
    """P4: nothing is written any more."""
    logged = Logged(small(log_bytes=1))
    logged.store.faults["append"] = LeaseLost("lost")
    logged.log.open(LEASE)
    for _ in range(3):
        logged.add(3)
        await turns()

    assert [type(error) for error in logged.failed] == [LeaseLost]
    with pytest.raises(LeaseLost):
        await logged.log.end(None, 5.0)
    assert logged.numbers == []


async def test_numbers_are_those_of_the_events() -> None:
    """P6: each batch says which it holds."""
    rig = Rig(FakeModel(*WORDS), limits=small(log_bytes=500))
    await rig.create(stream=True)
    stored = await rig.the_stored()
    after, count = -1, 0
    while True:
        read = await rig.store.read_events("default", stored.id, after=after, limit=1)
        assert read is not None
        for batch in read.batches:
            found = [number for number, _ in numbered(batch.frames)]
            assert found == list(range(batch.first, batch.last + 1))
            after, count = batch.last, count + 1
        if not read.more:
            break
    assert count > 1
