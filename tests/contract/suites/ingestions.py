"""Ingestions: the queue, its leases, chunks and vectors, how they end, and what the index is told."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from engine.errors import LeaseLost
from engine.ports import (
    ChunkCount,
    Chunking,
    FileCounts,
    IngestionClaim,
    IngestionLease,
    Removal,
    Store,
    StoredChunk,
)
from tests.support.vector_stores import (
    VECTOR,
    a_vector_store,
    attach,
    claim,
    fill,
    gone,
    ingest,
    the_batch,
    the_file,
    the_store,
)

Wait = Callable[[float], Awaitable[None]]


async def texts_of(store: Store, tenant: str, attachment: str = "vs/f/0") -> list[str]:
    """Return all chunks of an attachment."""
    return await store.chunk_texts(tenant, attachment, after=-1, limit=99)


class IngestionContract:
    """Who makes chunks of a file, and what comes of it."""

    async def test_what_waits_is_handed_out_once(self, store: Store, tenant: str) -> None:
        """P4: with all that is needed, the oldest first."""
        await a_vector_store(store, tenant)
        await attach(store, tenant, "b", "a", "c")
        [one, two] = await claim(store, limit=2)
        assert one == IngestionClaim(
            lease=IngestionLease(tenant, "vs/b/0", 1),
            store="vs",
            file_id="b",
            chunking=Chunking(200, 50),
            attempts=1,
            chunked=False,
        )
        assert [two.file_id, *(each.file_id for each in await claim(store))] == ["a", "c"]
        assert await claim(store) == []

    async def test_a_lease_that_ran_out_is_taken_over(
        self, store: Store, tenant: str, wait: Wait
    ) -> None:
        """P4: once, under a new token; its late owner changes nothing."""
        await a_vector_store(store, tenant)
        await attach(store, tenant, "f", "g")
        [old, _] = await claim(store)
        await fill(store, old, "one", "two")
        await wait(20)
        await store.renew_ingestions([old.lease], 60.0)
        await wait(11)
        assert [each.file_id for each in await claim(store, worker="w/1#1")] == ["g"]
        await wait(50)
        [again, new] = await claim(store, worker="w/1#1")
        assert (again.file_id, again.attempts, again.chunked) == ("g", 3, False)
        assert new.lease == IngestionLease(tenant, "vs/f/0", 2)
        assert (new.attempts, new.chunked) == (2, True)
        assert await store.renew_ingestions([old.lease], 30.0) == [old.lease]
        with pytest.raises(LeaseLost):
            await store.store_chunks(old.lease, 0, ["late"], last=True)
        with pytest.raises(LeaseLost):
            await store.finish_ingestion(old.lease, None)
        await store.put_back_ingestion(old.lease, seconds=0)
        assert await claim(store) == []
        assert await texts_of(store, tenant) == ["one", "two"]
        await store.finish_ingestion(new.lease, None)
        assert (await the_file(store, tenant, "f")).status == "completed"

    async def test_many_leases_are_renewed_at_once(
        self, store: Store, tenant: str, wait: Wait
    ) -> None:
        """P4: what ended, was detached or was never there is told lost."""
        await a_vector_store(store, tenant)
        await attach(store, tenant, *"abcd")
        leases = [each.lease for each in await claim(store)]
        await store.finish_ingestion(leases[1], None)
        await store.detach(tenant, "vs", "d")
        strange = [
            IngestionLease(tenant, "vs/a/0", 7),
            IngestionLease(f"{tenant}-thief", "vs/a/0", 1),
        ]
        await wait(20)
        lost = await store.renew_ingestions([*leases, *strange], 30.0)
        assert lost == [leases[1], leases[3], *strange]
        assert await store.renew_ingestions([], 30.0) == []
        await wait(20)
        assert await claim(store) == []

    async def test_the_queue_is_fair_to_tenants(self, store: Store, tenant: str) -> None:
        """P4: who has the fewest at work comes first, however long the line of another is."""
        other = f"{tenant}-2"
        for owner, names in ((tenant, "abcdef"), (other, "gh")):
            await a_vector_store(store, owner)
            await attach(store, owner, *names)
        taken = [each.file_id for each in await claim(store, limit=5)]
        assert taken == ["a", "g", "b", "h", "c"]
        await attach(store, other, "i")
        assert [each.file_id for each in await claim(store, limit=2)] == ["i", "d"]

    @pytest.mark.parametrize("end", ["waits", "is at work", "is completed", "has failed"])
    @pytest.mark.parametrize("way", ["detach", "cancel"])
    async def test_what_was_put_back_may_still_be_inserted(
        self, store: Store, tenant: str, wait: Wait, way: str, end: str
    ) -> None:
        """X1: an index that did not answer in time may do it later: the sweep is not there before."""
        await a_vector_store(store, tenant)
        await attach(store, tenant, "f", batch="b")
        [late] = await claim(store)
        await store.put_back_ingestion(late.lease, seconds=0)
        if end != "waits":
            [again] = await store.claim_ingestions("w/1#1", 5.0, limit=9)
            if end != "is at work":
                failed = end == "has failed"
                await store.finish_ingestion(
                    again.lease, ("server_error", "no") if failed else None
                )
        if way == "detach" or end in ("is completed", "has failed"):
            assert await store.detach(tenant, "vs", "f")
        else:
            assert await store.cancel_batch(tenant, "vs", "b")
        await wait(15)
        assert await gone(store, tenant) == []
        await store.forget_removals(tenant, ["vs/f/0"])
        await wait(16)
        assert await gone(store, tenant) == ["vs/f/0"]

    async def test_what_is_put_back_waits(self, store: Store, tenant: str, wait: Wait) -> None:
        """P4: for its time, or not at all; the attempt counts where it is said. Its owner has lost it."""
        await a_vector_store(store, tenant)
        await attach(store, tenant, "f", "g", "h")
        [one, two, three] = await claim(store)
        await fill(store, one, "text")
        await store.put_back_ingestion(one.lease, seconds=60, counts=True)
        await store.put_back_ingestion(two.lease, seconds=0)
        await store.put_back_ingestion(three.lease, seconds=61)
        for each in (one, two, three):
            assert await store.renew_ingestions([each.lease], 30.0) == [each.lease]
            with pytest.raises(LeaseLost):
                await store.finish_ingestion(each.lease, None)
        [again] = await claim(store)
        assert (again.file_id, again.attempts) == ("g", 1)
        await store.finish_ingestion(again.lease, None)
        await wait(62)
        [again, last] = await claim(store)
        assert (again.file_id, again.attempts, again.chunked) == ("f", 2, True)
        assert (last.file_id, last.attempts) == ("h", 1)

    async def test_twenty_claims_at_once_never_take_the_same(
        self, store: Store, tenant: str, wait: Wait
    ) -> None:
        """P4: neither of what waits, nor of what was left."""
        await a_vector_store(store, tenant)
        left, waiting = [f"l{n}" for n in range(20)], [f"w{n}" for n in range(40)]
        await attach(store, tenant, *left)
        assert len(await claim(store)) == 20
        await wait(31)
        await attach(store, tenant, *waiting)
        async with asyncio.timeout(30):
            taken = await asyncio.gather(*(claim(store, 2, f"w/{n}#1") for n in range(20)))
            rest = await claim(store)
        leases = [each.lease for claims in [*taken, rest] for each in claims]
        assert len(leases) == 60
        assert {each.attachment for each in leases} == {f"vs/{n}/0" for n in left + waiting}

    async def test_of_finishing_and_taking_over_one_wins(
        self, store: Store, tenant: str, wait: Wait
    ) -> None:
        """P4: either it is done and nobody has it, or it was taken and its old owner has changed nothing."""
        await a_vector_store(store, tenant)
        for number in range(10):
            await attach(store, tenant, f"f{number}")
            [old] = await claim(store)
            await wait(31)
            async with asyncio.timeout(20):
                finished, claims = await asyncio.gather(
                    store.finish_ingestion(old.lease, ("server_error", "old")),
                    claim(store),
                    return_exceptions=True,
                )
            assert isinstance(claims, list)
            assert (finished is None) == (claims == [])
            for each in claims:
                assert isinstance(finished, LeaseLost)
                await store.finish_ingestion(each.lease, None)
        counts = (await the_store(store, tenant)).counts
        assert (counts.completed + counts.failed, counts.in_progress) == (10, 0)

    async def test_chunks_are_written_over_from_a_number_on(
        self, store: Store, tenant: str
    ) -> None:
        """P4: whoever begins again leaves nothing of the first time, and any text is kept as it is."""
        await a_vector_store(store, tenant)
        await attach(store, tenant, "f")
        [claimed] = await claim(store)
        lease = claimed.lease
        texts = ["nul\0", "ü\U0001f600", "", "x" * 20_000, "four"]
        await store.store_chunks(lease, 0, list(texts), last=False)
        assert await texts_of(store, tenant) == texts
        await store.store_chunks(lease, 3, ["three"], last=False)
        assert await texts_of(store, tenant) == [*texts[:3], "three"]
        await store.store_chunks(lease, 4, [], last=True)
        assert await store.chunk_texts(tenant, "vs/f/0", after=0, limit=2) == texts[1:3]
        assert await texts_of(store, f"{tenant}-thief") == []
        await store.put_back_ingestion(lease, seconds=0)
        [again] = await claim(store)
        assert again.chunked
        await store.store_chunks(again.lease, 0, ["new"], last=False)
        await store.put_back_ingestion(again.lease, seconds=0)
        assert [each.chunked for each in await claim(store)] == [False]
        assert await texts_of(store, tenant) == ["new"]

    async def test_vectors_are_those_of_one_model(self, store: Store, tenant: str) -> None:
        """T8: of another model there is none; new text has none; what is gone gets none."""
        await a_vector_store(store, tenant)
        await attach(store, tenant, "f")
        [claimed] = await claim(store)
        await fill(store, claimed, "a", "b", "c")
        name = claimed.lease.attachment
        vectors = [(2, b"two2"), (0, b"zero"), (9, b"none")]
        await store.store_vectors(tenant, name, model="n", vectors=vectors)
        await store.store_vectors(f"{tenant}-thief", name, model="n", vectors=[(1, b"evil")])
        await store.store_vectors(tenant, name, model="n", vectors=[])

        async def seen(model: str, after: int = -1) -> list[bytes | None]:
            found = await store.chunks(tenant, name, model=model, after=after, limit=9)
            return [each.vector for each in found]

        assert await seen("n") == [b"zero", None, b"two2"]
        assert await seen("m") == [None, VECTOR, None]
        assert await seen("n", after=1) == [b"two2"]
        [first] = await store.chunks(tenant, name, model="n", after=-1, limit=1)
        assert first == StoredChunk(number=0, text="a", vector=b"zero")
        await store.store_chunks(claimed.lease, 2, ["new"], last=True)
        assert await seen("n") == [b"zero", None, None]
        assert await store.chunks(f"{tenant}-thief", name, model="n", after=-1, limit=9) == []

    async def test_chunks_are_counted(self, store: Store, tenant: str) -> None:
        """P4: all of them, and those that have a vector by a model; none of what failed or is another's."""
        await a_vector_store(store, tenant)
        await attach(store, tenant, "f")
        [claimed] = await claim(store)
        await fill(store, claimed, "a", "b", "c")
        name = claimed.lease.attachment
        await store.store_vectors(tenant, name, model="n", vectors=[(1, b"one1")])
        assert await store.chunk_count(tenant, name, model="m") == ChunkCount(3, 2)
        assert await store.chunk_count(tenant, name, model="n") == ChunkCount(3, 1)
        assert await store.chunk_count(f"{tenant}-thief", name, model="m") == ChunkCount(0, 0)
        await store.finish_ingestion(claimed.lease, ("invalid_file", "broken"))
        assert await store.chunk_count(tenant, name, model="m") == ChunkCount(0, 0)

    async def test_what_is_completed_is_counted_in_bytes(self, store: Store, tenant: str) -> None:
        """R10: of texts in UTF-8 and of vectors; a repetition of the same end changes nothing."""
        await a_vector_store(store, tenant)
        await attach(store, tenant, "f", "g", batch="b")
        claims = await claim(store)
        for each in claims:
            await fill(store, each, "ab", "ü")
        for each in [*claims, claims[0]]:
            await store.finish_ingestion(each.lease, None)
        file = await the_file(store, tenant, "f")
        assert (file.status, file.error, file.usage_bytes) == ("completed", None, 4 + 2 * 8)
        found = await the_store(store, tenant)
        assert (found.counts, found.usage_bytes) == (FileCounts(completed=2), 40)
        assert (await the_batch(store, tenant)).counts == FileCounts(completed=2)
        assert await store.renew_ingestions([claims[0].lease], 30.0) == [claims[0].lease]
        with pytest.raises(LeaseLost):
            await store.store_chunks(claims[0].lease, 0, [], last=True)
        await store.detach(tenant, "vs", "g")
        assert (await the_store(store, tenant)).usage_bytes == 20

    async def test_what_failed_says_why_and_keeps_nothing(
        self, store: Store, tenant: str, wait: Wait
    ) -> None:
        """P4: its chunks are gone; those in the index are to be removed when the lease would have ended.

        What its owner did not wait for may come there until then.
        """
        await a_vector_store(store, tenant)
        await attach(store, tenant, "f")
        [claimed] = await claim(store)
        await fill(store, claimed, "text")
        for _ in range(2):
            await store.finish_ingestion(claimed.lease, ("invalid_file", "broken: \0 ü"))
        file = await the_file(store, tenant, "f")
        assert (file.status, file.usage_bytes) == ("failed", 0)
        assert file.error == ("invalid_file", "broken: \0 ü")
        found = await the_store(store, tenant)
        assert (found.counts, found.usage_bytes) == (FileCounts(failed=1), 0)
        assert await texts_of(store, tenant) == []
        assert await claim(store) == []
        assert await gone(store, tenant) == []
        await wait(31)
        assert await gone(store, tenant) == ["vs/f/0"]

    async def test_removals_come_in_portions(self, store: Store, tenant: str) -> None:
        """P4: all of them, whatever is forgotten between."""
        await a_vector_store(store, tenant)
        await attach(store, tenant, *"abcde")
        for name in "abcde":
            await store.detach(tenant, "vs", name)
        seen: list[Removal] = []
        while found := await store.removals(limit=2):
            assert len(found) <= 2
            seen += found
            await store.forget_removals(tenant, [each.attachment for each in found])
        assert sorted(each.attachment for each in seen) == [f"vs/{name}/0" for name in "abcde"]
        assert {(each.tenant, each.store) for each in seen} == {(tenant, "vs")}

    async def test_what_is_completed_can_be_walked_through(self, store: Store, tenant: str) -> None:
        """P4: of all tenants, in portions, to build an index again; not what is not complete."""
        other = f"{tenant}-2"
        for owner in (tenant, other):
            await a_vector_store(store, owner)
            await attach(store, owner, *"cab")
        await ingest(store, "text")
        await attach(store, tenant, "d")
        seen: list[Removal] = []
        after = None
        while found := await store.completed_attachments(after=after, limit=2):
            seen += found
            after = (found[-1].tenant, found[-1].attachment)
        names = [f"vs/{name}/0" for name in "abc"]
        assert seen == [Removal(owner, "vs", name) for owner in (tenant, other) for name in names]
