"""Files on their way into the index: resumed, tried again, given up, put back; nothing is there twice."""

from __future__ import annotations

import asyncio

import pytest

from engine.errors import (
    EmbeddingFailed,
    ExtractionFailed,
    IndexUnavailable,
)
from engine.indexing import IndexingParts
from engine.ingestion import Ingestion, IngestionLimits
from engine.ingestion_job import IngestionParts
from engine.retrieval_upkeep import remove_gone
from tests.support.engine_rig import CALLER
from tests.support.retrieval import RetrievalRig
from tests.support.store_rig import Clocked, StoreRig

TENANT = CALLER.tenant
SMALL = {"type": "static", "static": {"max_chunk_size_tokens": 100, "chunk_overlap_tokens": 50}}
LONG = " ".join(f"word{n}" for n in range(1000))
"""19 chunks of 100 words that overlap by 50."""


class Bench:
    """A store with one long file attached; workers are made as a test wants them."""

    def __init__(self) -> None:
        self.clocked = Clocked()
        self.rig = StoreRig(store=self.clocked)
        self.parts = self.rig.parts
        self.store_id = ""
        self.file_id = ""

    async def attach(self, text: str = LONG, name: str = "long.txt") -> None:
        self.store_id = (await self.rig.made())["id"]
        self.file_id = await self.rig.upload(text, name)
        await self.rig.made(
            f"/{self.store_id}/files", file_id=self.file_id, chunking_strategy=SMALL
        )

    def worker(
        self,
        name: str,
        *,
        parts: RetrievalRig | None = None,
        attempts: int = 3,
        lease: float = 30.0,
    ) -> Ingestion:
        having = self.parts if parts is None else parts
        whole = IngestionParts(
            files=self.rig.engine.files,
            extraction=having.extraction,
            indexing=IndexingParts(
                store=self.clocked, embedder=having.embedder, index=having.index, batch=8
            ),
        )
        limits = IngestionLimits(most=2, attempts=attempts, lease=lease)
        return Ingestion(whole, limits, name)

    async def status(self) -> str:
        shown = await self.rig.got(f"/{self.store_id}/files/{self.file_id}")
        return str(shown["status"])

    async def ended(self) -> dict[str, object]:
        """Wait for the file's end; time flies meanwhile, as far as pauses between attempts go."""
        async with asyncio.timeout(10):
            while await self.status() == "in_progress":
                self.clocked.now += 0.5
                await asyncio.sleep(0.001)
        shown: dict[str, object] = await self.rig.got(f"/{self.store_id}/files/{self.file_id}")
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


async def test_what_was_only_claimed_is_put_back_too(bench: Bench) -> None:
    """E4: a worker that leaves between the claim and the first step of its work."""
    leaving = bench.worker("leaving", attempts=1)
    assert not await leaving._claim()
    await leaving.stop()
    assert not leaving._running
    [claim] = await bench.clocked.claim_ingestions("staying", 30, limit=1)
    assert claim.attempts == 1


@pytest.mark.parametrize(
    "fault",
    [EmbeddingFailed("busy", passing=True), ExtractionFailed("no room")],
    ids=["embedding", "extraction"],
)
async def test_what_may_pass_is_tried_again(bench: Bench, fault: Exception) -> None:
    """After a pause, and with what was done still done."""
    if isinstance(fault, EmbeddingFailed):
        bench.parts.embedder.faults = [fault, fault]
    else:
        bench.parts.extraction.faults = [fault, fault]
    worker = bench.worker("a")
    worker.start()
    assert (await bench.ended())["status"] == "completed"
    await worker.stop()
    assert await bench.kept() == await bench.indexed() == 19


async def test_what_does_not_pass_fails_at_once(bench: Bench) -> None:
    """With the reason, for whoever attached it."""
    bench.parts.embedder.faults = [EmbeddingFailed("no such model: m")]
    worker = bench.worker("a")
    worker.start()
    shown = await bench.ended()
    await worker.stop()
    assert shown["status"] == "failed"
    assert shown["last_error"] == {"code": "server_error", "message": "no such model: m"}


async def test_attempts_are_counted(bench: Bench) -> None:
    """P4: the last reason is told, and nothing of the file is left in the index."""
    bench.parts.embedder.faults = [EmbeddingFailed("busy", passing=True)] * 3
    worker = bench.worker("a", attempts=3)
    worker.start()
    shown = await bench.ended()
    await worker.stop()
    assert shown["last_error"] == {"code": "server_error", "message": "busy"}
    assert bench.parts.embedder.faults == []


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
    """X1: also what was put in when nobody wanted it any more."""
    bench.parts.embedder.gate = asyncio.Event()
    worker = bench.worker("a", lease=0.03)
    worker.start()
    await bench.parts.embedder.reached.wait()
    attachment = await bench.attachment()
    await bench.rig.got(f"/{bench.store_id}/files/{bench.file_id}", "DELETE")
    await bench.rig.engine.until(lambda: not worker._running)
    bench.clocked.now += 31
    assert await remove_gone(bench.clocked, bench.parts.index) == 1
    assert await remove_gone(bench.clocked, bench.parts.index) == 0
    assert await bench.parts.index.count(TENANT, bench.store_id, attachment) == 0
    await worker.stop()


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
    assert await remove_gone(bench.clocked, bench.parts.index) == 1
    assert await bench.parts.index.count(TENANT, bench.store_id, attachment) == 0
