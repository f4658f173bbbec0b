"""`engine.following`: a stream read from its log, at any place, by any number of readers (rule P6)."""

from __future__ import annotations

import asyncio
import random

import msgspec
import pytest

from engine import sse
from engine.errors import InvalidRequest, NotFound, StorageUnavailable
from engine.following import Following
from engine.limits import Limits
from engine.ports import EventBatch, FinishedResponse, Lease, LoggedEvents
from storage.memory import MemoryStore
from tests.support.engine_rig import turns
from tests.support.fake_reply import FakeReply
from tests.support.frames import numbered
from tests.support.stored import a_response
from tests.support.transcripts import event_of

ID = "resp_1"
QUICK = Limits(save_wait=0.0)


class Log(MemoryStore):
    """A store whose reads are counted, fail or wait as the test says."""

    def __init__(self) -> None:
        super().__init__()
        self.reads = 0
        self.away = False
        self.held: asyncio.Event | None = None
        self.lease = Lease("t", ID, 0)

    async def read_events(
        self, tenant: str, response_id: str, *, after: int, limit: int
    ) -> LoggedEvents | None:
        self.reads += 1
        if self.away:
            raise StorageUnavailable("away")
        if self.held is not None:
            await self.held.wait()
        return await super().read_events(tenant, response_id, after=after, limit=limit)

    async def begin(self, *, streamed: bool = True) -> None:
        """Accept the response."""
        new = a_response("t", ID)
        self.lease = await self.accept(msgspec.structs.replace(new, streamed=streamed))

    async def log(self, first: int, last: int, *, padding: int = 0) -> None:
        """Log some events."""
        await self.append(self.lease, batch(first, last, padding))

    async def close(self, first: int, last: int) -> None:
        """Log the last events and end the response."""
        await self.finish(
            FinishedResponse(self.lease, "completed", b"{}", [], batch(first, last, 0))
        )


def batch(first: int, last: int, padding: int) -> EventBatch:
    """Events that say their number."""
    frames = [
        b'event: response.x\ndata: {"type":"response.x","sequence_number":%d,"p":"%b"}\n\n'
        % (number, b"x" * padding)
        for number in range(first, last + 1)
    ]
    return EventBatch(first, last, b"".join(frames))


def numbers(reply: FakeReply) -> list[int]:
    """The numbers of the events that were sent."""
    return [number for number, _ in numbered(reply.raw.replace(sse.KEEP_ALIVE, b""))]


def following(log: Log, limits: Limits = QUICK) -> Following:
    """The followers of a worker."""
    return Following(log, limits)


async def follow(
    served: Following, after: int, reply: FakeReply | None = None, tenant: str = "t"
) -> FakeReply:
    """Follow to the end."""
    reply = reply if reply is not None else FakeReply()
    async with asyncio.timeout(5):
        await served.follow(tenant, ID, after, reply)
    assert reply.ended
    return reply


async def test_an_ended_stream_is_replayed_from_any_number() -> None:
    """P6: N+1 to the terminal event, then [DONE]; batches are cut inside."""
    log = Log()
    await log.begin()
    await log.log(0, 4)
    await log.log(5, 5)
    await log.close(6, 9)
    whole = (await follow(following(log), -1)).raw
    for after in range(-1, 10):
        reply = await follow(following(log), after)
        assert numbers(reply) == list(range(after + 1, 10))
        assert whole.endswith(reply.raw)
        assert reply.raw.endswith(sse.DONE)


async def test_who_saw_more_than_the_log_is_sent_all_that_the_takeover_made() -> None:
    """P6: a dead worker's last events are in no log; the numbers behind the leap are above them."""
    log = Log()
    await log.begin()
    await log.log(0, 4)
    await log.close(1_000_005, 1_000_009)
    for after in (4, 7, 500):
        reply = await follow(following(log), after)
        assert numbers(reply) == list(range(1_000_005, 1_000_010))
        assert reply.raw.endswith(sse.DONE)
    assert (await follow(following(log), 1_000_009)).raw == sse.DONE


async def test_a_long_log_is_read_by_pages_as_the_client_takes_them() -> None:
    """E6, X5: what a client does not read is not held."""
    log = Log()
    await log.begin()
    for first in range(0, 1000, 10):
        await log.log(first, first + 9, padding=1000)
    await log.close(1000, 1000)
    slow = asyncio.Event()
    reply = FakeReply(slow)
    reading = asyncio.ensure_future(follow(following(log), -1, reply))
    async with asyncio.timeout(5):
        await reply.opening.wait()
    assert log.reads == 1
    slow.set()
    await reading
    assert numbers(reply) == list(range(1001))
    assert log.reads > 10


async def test_fifty_followers_from_anywhere_share_one_poll() -> None:
    """P6: no gap and no duplicate for anybody, and not fifty times the queries."""
    log = Log()
    await log.begin()
    await log.log(0, 9)
    served = following(log)
    randomly = random.Random(3)
    starts = [randomly.randint(-1, 30) for _ in range(50)]
    replies = [FakeReply() for _ in starts]
    tasks = [
        asyncio.ensure_future(follow(served, after, reply))
        for after, reply in zip(starts, replies, strict=True)
    ]
    async with asyncio.timeout(5):
        await asyncio.gather(*(reply.opening.wait() for reply in replies))
        for first in range(10, 40, 3):
            before = log.reads
            await log.log(first, first + 2)
            served.notify(ID)
            for after, reply in zip(starts, replies, strict=True):
                if after < first + 2:
                    await reply.until(b'"sequence_number":%d,' % (first + 2))
            assert log.reads - before < 25
        await log.close(40, 40)
        served.notify(ID)
        await asyncio.gather(*tasks)
    for after, reply in zip(starts, replies, strict=True):
        assert numbers(reply) == list(range(after + 1, 41))


async def test_a_follower_of_another_workers_response_polls() -> None:
    """P6: without being told of anything."""
    log = Log()
    await log.begin()
    served = following(log)
    reply = FakeReply()
    reading = asyncio.ensure_future(follow(served, -1, reply))
    await log.log(0, 2)
    await reply.until(b'"sequence_number":2,')
    await log.close(3, 3)
    await reading
    assert numbers(reply) == [0, 1, 2, 3]


async def test_a_follower_that_falls_behind_reads_the_store_again() -> None:
    """X5: what is kept for all is bounded; who is slower than that misses nothing."""
    log = Log()
    await log.begin()
    served = following(log)
    slow, quick = FakeReply(asyncio.Event()), FakeReply()
    assert slow._slow is not None
    tasks = [asyncio.ensure_future(follow(served, -1, reply)) for reply in (slow, quick)]
    await log.log(0, 0)
    await quick.until(b'"sequence_number":0,')
    for first in range(1, 41):
        await log.log(first, first, padding=100_000)
        served.notify(ID)
        await quick.until(b'"sequence_number":%d,' % first)
    slow._slow.set()
    await log.close(41, 41)
    await asyncio.gather(*tasks)
    assert numbers(slow) == numbers(quick) == list(range(42))


async def test_a_slow_follower_that_joins_when_all_is_over_misses_nothing() -> None:
    """P6, R1: another one that is still writing keeps the news, but not from where the slow one is."""
    log = Log()
    await log.begin()
    await log.log(0, 4)
    served = following(log)
    slow, other = asyncio.Event(), asyncio.Event()
    replies = [FakeReply(slow), FakeReply(other)]
    behind = asyncio.ensure_future(follow(served, -1, replies[0]))
    async with asyncio.timeout(5):
        await replies[0].opening.wait()
        await log.log(5, 6)
        ahead = asyncio.ensure_future(follow(served, 6, replies[1]))
        while ID not in served._watches:
            await turns()
        watch = served._watches[ID]
        for first in (7, 8):
            await log.log(first, first)
            while watch.since(6).batches[-1:] != [batch(first, first, 0)]:
                await watch.change()
        await log.close(9, 9)
        while watch.since(6).more:
            await watch.change()
        slow.set()
        await behind
        other.set()
        await ahead
    assert [numbers(reply) for reply in replies] == [list(range(10)), [7, 8, 9]]
    assert all(reply.raw.endswith(sse.DONE) for reply in replies)


async def test_who_joins_while_the_end_is_read_for_one_that_is_ahead_misses_nothing() -> None:
    """P6, R1: what was asked for is the news behind the other's event."""
    log = Log()
    await log.begin()
    await log.log(0, 4)
    served = following(log)
    slow = asyncio.Event()
    replies = [FakeReply(slow), FakeReply()]
    behind = asyncio.ensure_future(follow(served, -1, replies[0]))
    async with asyncio.timeout(5):
        await replies[0].opening.wait()
        ahead = asyncio.ensure_future(follow(served, 500, replies[1]))
        await replies[1].opening.wait()
        log.held = asyncio.Event()
        await turns()
        await log.close(5, 5)
        slow.set()
        await turns()
        assert served._watches[ID].followers == 2
        log.held.set()
        await asyncio.gather(behind, ahead)
    assert [numbers(reply) for reply in replies] == [list(range(6)), []]
    assert all(reply.raw.endswith(sse.DONE) for reply in replies)


async def test_silence_has_heartbeats() -> None:
    """R13."""
    log = Log()
    await log.begin()
    await log.log(0, 0)
    reply = FakeReply()
    reading = asyncio.ensure_future(follow(following(log, Limits(heartbeat=0.01)), -1, reply))
    await reply.until(sse.KEEP_ALIVE, 3)
    await log.close(1, 1)
    await reading
    assert numbers(reply) == [0, 1]


@pytest.mark.parametrize("tenant", ["t", "other"])
async def test_a_response_that_is_not_there_cannot_be_followed(tenant: str) -> None:
    """X1: nor one of another tenant's."""
    log = Log()
    if tenant == "other":
        await log.begin()
    with pytest.raises(NotFound, match="resp_1"):
        await follow(following(log), -1, tenant=tenant)


async def test_a_response_without_events_cannot_be_followed() -> None:
    """H1."""
    log = Log()
    await log.begin(streamed=False)
    with pytest.raises(InvalidRequest) as refused:
        await follow(following(log), -1)
    assert refused.value.param == "stream"


async def test_a_store_that_is_away_at_the_beginning_is_a_status() -> None:
    """P2: 503 at once."""
    log = Log()
    log.away = True
    reply = FakeReply()
    with pytest.raises(StorageUnavailable):
        await follow(following(log), -1, reply)
    assert not reply.opened


async def test_an_outage_is_waited_out() -> None:
    """P2: with heartbeats; nothing is missing afterwards."""
    log = Log()
    await log.begin()
    await log.log(0, 0)
    reply = FakeReply()
    served = following(log, Limits(save_wait=30, heartbeat=0.01))
    reading = asyncio.ensure_future(follow(served, -1, reply))
    await reply.until(b'"sequence_number":0,')
    log.away = True
    seen = log.reads
    await reply.until(sse.KEEP_ALIVE, reply.raw.count(sse.KEEP_ALIVE) + 3)
    assert log.reads >= seen
    log.away = False
    await log.close(1, 1)
    await reading
    assert numbers(reply) == [0, 1]


def _the_end(reply: FakeReply) -> tuple[str, int]:
    """The code and the number of the error that ended it; it is no end of the response."""
    last = event_of(reply.raw.rstrip(b"\n").split(b"\n\n")[-1])
    assert last["type"] == "error"
    assert sse.DONE not in reply.raw
    return last["code"], last["sequence_number"]


async def test_an_outage_that_lasts_ends_the_stream_and_not_the_response() -> None:
    """P2, P6: an error event with the last number, from which the client can go on later."""
    log = Log()
    await log.begin()
    await log.log(0, 3)
    served = following(log, Limits(save_wait=0.05))
    reply = FakeReply()
    reading = asyncio.ensure_future(follow(served, -1, reply))
    await reply.until(b'"sequence_number":3,')
    log.away = True
    await reading
    assert _the_end(reply) == ("storage_unavailable", 3)
    log.away = False
    await log.close(4, 4)
    assert numbers(await follow(served, 3)) == [4]


async def test_a_response_that_is_deleted_while_it_is_followed() -> None:
    """P7: its followers are told."""
    log = Log()
    await log.begin()
    await log.log(0, 3)
    reply = FakeReply()
    reading = asyncio.ensure_future(follow(following(log), -1, reply))
    await reply.until(b'"sequence_number":3,')
    await log.delete("t", ID)
    await reading
    assert _the_end(reply) == ("not_found", 3)


@pytest.mark.parametrize("reading", ["live", "pages"])
async def test_a_worker_that_stops_sends_its_followers_elsewhere(reading: str) -> None:
    """E4: they can go on behind the last number at another worker."""
    log = Log()
    await log.begin()
    for first in range(0, 100, 10):
        await log.log(first, first + 9, padding=2000 if reading == "pages" else 0)
    served = following(log)
    slow = asyncio.Event()
    reply = FakeReply(slow)
    following_ = asyncio.ensure_future(follow(served, -1, reply))
    async with asyncio.timeout(5):
        await reply.opening.wait()
    if reading == "live":
        slow.set()
        await reply.until(b'"sequence_number":99,')
    served.stop()
    slow.set()
    await following_
    code, last = _the_end(reply)
    assert code == "server_error"
    sent = [number for number, _ in numbered(reply.raw)][:-1]
    assert sent == list(range(last + 1))


async def test_followers_that_leave_leave_nothing_behind() -> None:
    """X5: the poll ends with the last of them."""
    log = Log()
    await log.begin()
    await log.log(0, 0)
    served = following(log)
    replies = [FakeReply() for _ in range(3)]
    tasks = [asyncio.ensure_future(follow(served, -1, reply)) for reply in replies]
    for reply in replies:
        await reply.until(b'"sequence_number":0,')
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    assert served._watches == {}
    served.notify(ID)
