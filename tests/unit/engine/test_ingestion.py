"""Files on their way into the index: resumed, tried again, given up, put back; nothing is there twice."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import pytest

from engine.errors import (
    EmbeddingFailed,
    ExtractionFailed,
    ExtractionRefused,
    IndexUnavailable,
    StorageUnavailable,
)
from engine.indexing import IndexingParts
from engine.ingestion import Ingestion, IngestionLimits
from engine.ingestion_job import Endurance, IngestionParts
from engine.ports import IngestionLease
from engine.ports.meters import IngestionEnd, Meters
from engine.retrieval_upkeep import remove_gone
from tests.support.engine_rig import CALLER
from tests.support.retrieval import RetrievalRig
from tests.support.store_rig import Clocked, StoreRig

TENANT = CALLER.tenant
SMALL = {"type": "static", "static": {"max_chunk_size_tokens": 100, "chunk_overlap_tokens": 50}}
LONG = " ".join(f"word{n}" for n in range(1000))
"""19 chunks of 100 words that overlap by 50."""


class Counted(Meters):
    """Keeps how each file ended, and how many chunks it has."""

    def __init__(self) -> None:
        self.ends: list[tuple[str, int]] = []

    def ingested(self, end: IngestionEnd, chunks: int, seconds: float) -> None:
        assert seconds >= 0
        self.ends.append((end, chunks))


class Bench:
    """A store with one long file attached; workers are made as a test wants them."""

    def __init__(self) -> None:
        self.clocked = Clocked()
        self.rig = StoreRig(store=self.clocked)
        self.parts = self.rig.parts
        self.meters = Counted()
        self.store_id = ""
        self.file_id = ""

    async def attach(self, text: str = LONG, name: str = "long.txt") -> None:
        self.store_id = (await self.rig.made())["id"]
        self.file_id = await self.rig.upload(text, name)
        await self.rig.made(
            f"/{self.store_id}/files", file_id=self.file_id, chunking_strategy=SMALL
        )

    async def through(self, **limits: Any) -> dict[str, Any]:
        """Have a worker bring the file to its end; return what it has become."""
        worker = self.worker("a", **limits)
        worker.start()
        shown = await self.ended(worker)
        await self.rig.engine.until(lambda: not worker._running)
        await worker.stop()
        return shown

    def worker(
        self,
        name: str,
        *,
        parts: RetrievalRig | None = None,
        attempts: int = 3,
        patience: float = 3600.0,
        lease: float = 30.0,
    ) -> Ingestion:
        having = self.parts if parts is None else parts
        whole = IngestionParts(
            files=self.rig.engine.files,
            extraction=having.extraction,
            indexing=IndexingParts(
                store=self.clocked, embedder=having.embedder, index=having.index, batch=8
            ),
            clock=lambda: self.clocked.now,
            meters=self.meters,
        )
        endurance = Endurance(attempts=attempts, patience=patience)
        limits = IngestionLimits(most=2, lease=lease, endurance=endurance)
        return Ingestion(whole, limits, name)

    async def status(self) -> str:
        shown = await self.rig.got(f"/{self.store_id}/files/{self.file_id}")
        return str(shown["status"])

    async def ended(self, worker: Ingestion | None = None) -> dict[str, Any]:
        """Wait for the file's end; time flies meanwhile, as far as pauses between attempts go."""
        async with asyncio.timeout(10):
            while await self.status() == "in_progress":
                self.clocked.now += 0.5
                if worker is not None:
                    worker.wake()
                await asyncio.sleep(0.001)
        shown: dict[str, Any] = await self.rig.got(f"/{self.store_id}/files/{self.file_id}")
        return shown

    async def attachment(self) -> str:
        found = await self.clocked.get_attachment(TENANT, self.store_id, self.file_id)
        assert found is not None
        return found.id

    async def indexed(self) -> int:
        return await self.parts.index.count(TENANT, self.store_id, await self.attachment())

    async def kept(self) -> int:
        chunks = await self.clocked.chunks(
            TENANT, await self.attachment(), model="hashed", after=-1, limit=1000
        )
        assert [chunk.number for chunk in chunks] == list(range(len(chunks)))
        return len(chunks)


class LateIndex:
    """Has the next batch that is put into a bench's index wait until it `lands`."""

    def __init__(self, bench: Bench) -> None:
        self.reached, self.lands, self.landed = asyncio.Event(), asyncio.Event(), 0
        self._index = bench.parts.index
        self._insert = self._index.insert
        self._index.insert = self._late  # type: ignore[method-assign, assignment]

    def undo(self) -> None:
        """Later batches do not wait."""
        self._index.insert = self._insert  # type: ignore[method-assign]

    async def _late(self, *args: Any) -> None:
        self.reached.set()
        await self.lands.wait()
        await self._insert(*args)
        self.landed += 1


@pytest.fixture
async def bench() -> Bench:
    made = Bench()
    await made.attach()
    return made


async def test_a_file_becomes_chunks_in_store_and_index(bench: Bench) -> None:
    """In batches, each once."""
    worker = bench.worker("a")
    worker.start()
    assert (await bench.ended())["status"] == "completed"
    await worker.stop()
    assert await bench.kept() == await bench.indexed() == 19
    assert len(bench.parts.embedder.embedded) == 19
    assert bench.meters.ends == [("completed", 19)]


async def test_a_takeover_goes_on_where_the_dead_one_was(bench: Bench) -> None:
    """P4: nothing is read or embedded twice that was kept, and no chunk is there twice."""
    dead = RetrievalRig()
    dead.index = bench.parts.index
    dead.embedder.gate, dead.embedder.free = asyncio.Event(), 10
    dying = bench.worker("dying", parts=dead)
    dying.start()
    await dead.embedder.reached.wait()  # and there it hangs, as the dead do
    done = len(dead.embedder.embedded)
    bench.clocked.now += 31
    successor = bench.worker("successor")
    successor.start()
    assert (await bench.ended())["status"] == "completed"
    assert bench.parts.extraction.read == []
    assert len(bench.parts.embedder.embedded) == 19 - done < 19
    dead.embedder.gate.set()
    await successor.stop()
    await dying.stop()
    assert await bench.kept() == await bench.indexed() == 19
    assert await bench.status() == "completed"


async def test_a_drain_puts_back_what_runs(bench: Bench) -> None:
    """E4: another worker has it at once, and the attempt does not count."""
    bench.parts.embedder.gate = asyncio.Event()
    leaving = bench.worker("leaving", attempts=1)
    leaving.start()
    await bench.parts.embedder.reached.wait()
    await leaving.stop()
    bench.parts.embedder.gate = None
    assert await bench.status() == "in_progress"
    staying = bench.worker("staying", attempts=1)
    staying.start()
    assert (await bench.ended())["status"] == "completed"
    await staying.stop()
    assert bench.parts.extraction.read == ["long.txt"]
    # What is put back has not ended.
    assert bench.meters.ends == [("completed", 19)]


async def test_what_was_only_claimed_is_put_back_too(bench: Bench) -> None:
    """E4: a worker that leaves between the claim and the first step of its work."""
    leaving = bench.worker("leaving", attempts=1)
    assert not await leaving._claim()
    await leaving.stop()
    assert not leaving._running
    [claim] = await bench.clocked.claim_ingestions("staying", 30, limit=1)
    assert claim.attempts == 1


_AWAY = [
    EmbeddingFailed("busy", passing=True),
    EmbeddingFailed("the server refuses the gateway's credentials"),
    ExtractionFailed("no room"),
    StorageUnavailable("away"),
]


@pytest.mark.parametrize("fault", _AWAY, ids=["busy", "misconfigured", "extraction", "store"])
async def test_servers_that_are_away_are_waited_for(bench: Bench, fault: Exception) -> None:
    """Their faults are not the file's: however often, no attempt is used up; what was done stays done."""
    faulty = bench.parts.embedder if isinstance(fault, EmbeddingFailed) else bench.parts.extraction
    faulty.faults = [fault] * 20
    assert (await bench.through(attempts=1))["status"] == "completed"
    assert faulty.faults == []
    assert await bench.kept() == await bench.indexed() == 19


@pytest.mark.parametrize("fault", _AWAY, ids=["busy", "misconfigured", "extraction", "store"])
async def test_they_are_waited_for_until_a_deadline(bench: Bench, fault: Exception) -> None:
    """It counts from when the file was attached; the last reason is told."""
    faulty = bench.parts.embedder if isinstance(fault, EmbeddingFailed) else bench.parts.extraction
    faulty.faults = [fault] * 1000
    attached = bench.clocked.now
    shown = await bench.through(patience=300.0)
    assert shown["last_error"] == {"code": "server_error", "message": str(fault)}
    assert bench.clocked.now - attached >= 300
    assert len(faulty.faults) > 950  # the pauses grow


@pytest.mark.parametrize(
    ("fault", "code"),
    [
        (EmbeddingFailed("Refused for its text.", refused=True), "invalid_file"),
        (ExtractionRefused("It is damaged."), "invalid_file"),
        (ExtractionRefused("Not of a kind.", code="unsupported_file"), "unsupported_file"),
    ],
    ids=["embedding", "damaged", "unsupported"],
)
async def test_faults_of_the_file_end_it_at_once(bench: Bench, fault: Exception, code: str) -> None:
    """With the reason, for whoever attached it."""
    faulty = bench.parts.embedder if isinstance(fault, EmbeddingFailed) else bench.parts.extraction
    faulty.faults = [fault]
    shown = await bench.through()
    assert shown["status"] == "failed"
    assert shown["last_error"] == {"code": code, "message": str(fault)}
    assert bench.meters.ends == [("failed", 0)]


async def test_deaths_of_what_reads_are_counted(bench: Bench) -> None:
    """P4: nobody knows whether the document kills it; the last reason is told."""
    bench.parts.extraction.faults = [ExtractionFailed("It was killed.", died=True)] * 3
    shown = await bench.through(attempts=3)
    assert shown["last_error"] == {"code": "server_error", "message": "It was killed."}
    assert bench.parts.extraction.faults == []


async def test_what_failed_leaves_nothing_in_the_index(bench: Bench) -> None:
    """X1: neither chunks that were there before its fault, nor any that came after the sweep of removals."""
    bench.parts.embedder.free, bench.parts.embedder.gate = 12, asyncio.Event()
    worker = bench.worker("a")
    worker.start()
    await bench.parts.embedder.reached.wait()
    assert await bench.indexed() == 8
    bench.parts.embedder.faults = [EmbeddingFailed("Refused.", refused=True)]
    bench.parts.embedder.gate.set()
    assert (await bench.ended())["status"] == "failed"
    await bench.rig.engine.until(lambda: not worker._running)
    await worker.stop()
    assert await bench.indexed() == 0


async def test_the_log_does_not_repeat_what_servers_say(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    """P5: messages of embedding servers repeat texts."""
    caplog.set_level(logging.DEBUG)
    bench.parts.embedder.faults = [
        EmbeddingFailed("input was: secret"),
        StorageUnavailable("secret"),
    ]
    assert (await bench.through())["status"] == "completed"
    assert "EmbeddingFailed (embedding_failed)" in caplog.text
    assert "secret" not in caplog.text


async def test_a_store_that_is_away_at_the_end_is_told_later(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """P2: it hears what became of the file when it is back, and nothing is done twice."""
    monkeypatch.setattr("engine.ingestion_job._STORE_PAUSE", 0.001)
    finish, left = bench.clocked.finish_ingestion, 3

    async def away(*args: Any) -> None:
        nonlocal left
        left -= 1
        if left >= 0:
            raise StorageUnavailable("away")
        await finish(*args)

    bench.clocked.finish_ingestion = away  # type: ignore[method-assign, assignment]
    assert (await bench.through(attempts=1))["status"] == "completed"
    assert left == -1
    assert len(bench.parts.embedder.embedded) == 19


async def test_an_index_that_is_away_is_waited_for(bench: Bench) -> None:
    """Nothing is embedded again for that."""
    index = bench.parts.index
    insert, left = index.insert, 2

    async def away(*args: object) -> None:
        nonlocal left
        left -= 1
        if left >= 0:
            raise IndexUnavailable("away")
        await insert(*args)  # type: ignore[arg-type]

    index.insert = away  # type: ignore[method-assign, assignment]
    worker = bench.worker("a")
    worker.start()
    assert (await bench.ended())["status"] == "completed"
    await worker.stop()
    assert len(bench.parts.embedder.embedded) == 19


async def test_a_file_that_kills_its_workers_is_given_up(bench: Bench) -> None:
    """P4: it does not go round for ever."""
    for name in ("first", "second"):
        assert await bench.clocked.claim_ingestions(name, 30, limit=1)
        bench.clocked.now += 31
    worker = bench.worker("third", attempts=2)
    worker.start()
    shown = await bench.ended()
    await worker.stop()
    assert shown["last_error"] == {"code": "server_error", "message": "Given up after 2 attempts."}
    assert bench.parts.extraction.read == []


async def test_a_file_that_breaks_the_code_fails_in_the_end(bench: Bench) -> None:
    """What is in the log is not told to the client."""
    bench.parts.extraction.faults = [ZeroDivisionError("secret")] * 2
    worker = bench.worker("a", attempts=2)
    worker.start()
    shown = await bench.ended()
    await worker.stop()
    assert shown["status"] == "failed"
    assert "secret" not in str(shown)


async def test_what_is_detached_is_stopped_and_leaves_the_index(bench: Bench) -> None:
    """X1: also what was put in when nobody wanted it any more, and the sweep had been there."""
    late = LateIndex(bench)
    worker = bench.worker("a", lease=0.03)
    worker.start()
    await late.reached.wait()
    attachment = await bench.attachment()
    await bench.rig.got(f"/{bench.store_id}/files/{bench.file_id}", "DELETE")
    # Its lease is lost, it was cancelled, and what it sent is not there yet.
    [task] = worker._running.values()
    await bench.rig.engine.until(lambda: task.cancelling() > 0)
    bench.clocked.now += 31
    assert await remove_gone(bench.clocked, bench.parts.index)
    assert not await remove_gone(bench.clocked, bench.parts.index)
    late.lands.set()
    await bench.rig.engine.until(lambda: not worker._running)
    assert late.landed == 1
    assert await bench.parts.index.count(TENANT, bench.store_id, attachment) == 0
    await worker.stop()
    assert bench.meters.ends == [("cancelled", 0)]


async def test_who_was_taken_over_leaves_nothing_behind(bench: Bench) -> None:
    """P4, X1: its successor has finished, and the file is detached, when its batch lands in the index."""
    stale = RetrievalRig()
    stale.index = bench.parts.index
    late = LateIndex(bench)
    old = bench.worker("stale", parts=stale, lease=3600.0)
    old.start()
    await late.reached.wait()
    late.undo()
    bench.clocked.now += 3601
    assert (await bench.through())["status"] == "completed"
    attachment = await bench.attachment()
    await bench.rig.got(f"/{bench.store_id}/files/{bench.file_id}", "DELETE")
    assert await remove_gone(bench.clocked, bench.parts.index)
    late.lands.set()
    await bench.rig.engine.until(lambda: not old._running)
    await old.stop()
    assert late.landed == 1
    assert await bench.parts.index.count(TENANT, bench.store_id, attachment) == 0


async def test_what_lands_behind_its_deadline_does_not_stay(bench: Bench) -> None:
    """X1: the index did not answer in time, the file was put back and detached, and then it did."""
    index = bench.parts.index
    insert, sent = index.insert, []

    async def slow(*args: Any) -> None:
        sent.append(args)
        raise IndexUnavailable("no answer in time")

    index.insert = slow  # type: ignore[method-assign, assignment]
    worker = bench.worker("a", lease=30.0)
    worker.start()
    await bench.rig.engine.until(lambda: bool(sent) and not worker._running)
    await worker.stop()
    attachment = await bench.attachment()
    await bench.rig.got(f"/{bench.store_id}/files/{bench.file_id}", "DELETE")
    assert not await remove_gone(bench.clocked, index)
    await insert(*sent[0])
    assert await index.count(TENANT, bench.store_id, attachment) > 0
    bench.clocked.now += 31
    assert await remove_gone(bench.clocked, index)
    assert await index.count(TENANT, bench.store_id, attachment) == 0


async def test_an_index_emptied_in_mid_file_is_filled_again(bench: Bench) -> None:
    """T8: `reindex --clear` beside workers loses nothing, wherever it comes."""
    index, embedder = bench.parts.index, bench.parts.embedder
    embedder.free, embedder.gate = 12, asyncio.Event()
    worker = bench.worker("a")
    worker.start()
    await embedder.reached.wait()
    assert await bench.indexed() == 8
    await index.clear()
    embedder.gate.set()
    assert (await bench.ended())["status"] == "completed"
    await worker.stop()
    assert await bench.indexed() == len(embedder.embedded) == 19


async def test_an_index_emptied_just_before_the_end_is_filled_again(bench: Bench) -> None:
    """T8: whoever makes it again has passed what was not completed yet."""
    finish = bench.clocked.finish_ingestion

    async def emptied_first(*args: Any) -> None:
        await bench.parts.index.clear()
        await finish(*args)

    bench.clocked.finish_ingestion = emptied_first  # type: ignore[method-assign, assignment]
    worker = bench.worker("a")
    worker.start()
    await bench.ended()
    await bench.rig.engine.until(lambda: not worker._running)
    await worker.stop()
    assert await bench.indexed() == 19


async def test_what_is_put_right_behind_the_end_is_not_stopped_for_its_lease(bench: Bench) -> None:
    """T8: the lease went with the end, which is no loss."""
    finish, renew = bench.clocked.finish_ingestion, bench.clocked.renew_ingestions
    lost = asyncio.Event()

    async def emptied_first(*args: Any) -> None:
        await bench.parts.index.clear()
        await finish(*args)
        bench.parts.index.insert = held  # type: ignore[method-assign, assignment]

    async def watched(*args: Any) -> list[IngestionLease]:
        found = await renew(*args)
        if found:
            lost.set()
        return found

    insert = bench.parts.index.insert

    async def held(*args: Any) -> None:
        async with asyncio.timeout(10):
            await lost.wait()
        await insert(*args)

    bench.clocked.finish_ingestion = emptied_first  # type: ignore[method-assign, assignment]
    bench.clocked.renew_ingestions = watched  # type: ignore[method-assign, assignment]
    worker = bench.worker("a", lease=0.03)
    worker.start()
    await bench.ended()
    await bench.rig.engine.until(lambda: not worker._running)
    await worker.stop()
    assert await bench.indexed() == 19


async def test_removals_are_done_again_until_they_are_done(bench: Bench) -> None:
    """They are forgotten last."""
    worker = bench.worker("a")
    worker.start()
    await bench.ended()
    await worker.stop()
    attachment = await bench.attachment()
    await bench.rig.got(f"/{bench.store_id}", "DELETE")
    remove = bench.parts.index.remove

    async def away(*_args: object) -> None:
        raise IndexUnavailable("away")

    bench.parts.index.remove = away  # type: ignore[method-assign, assignment]
    with pytest.raises(IndexUnavailable):
        await remove_gone(bench.clocked, bench.parts.index)
    bench.parts.index.remove = remove  # type: ignore[method-assign]
    assert await bench.parts.index.count(TENANT, bench.store_id, attachment) == 19
    assert await remove_gone(bench.clocked, bench.parts.index)
    assert await bench.parts.index.count(TENANT, bench.store_id, attachment) == 0
