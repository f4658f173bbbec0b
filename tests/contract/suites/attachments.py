"""Files of vector stores: attaching, listing, labelling, detaching, batches."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from engine.errors import InvalidRequest, LeaseLost
from engine.ports import (
    Attached,
    AttributeValue,
    Chunking,
    FileCounts,
    NewAttachment,
    NewVectorStore,
    Order,
    Store,
)
from tests.support.vector_stores import (
    DAY,
    HOUR,
    VECTOR,
    a_file_named,
    a_vector_store,
    an_attachment,
    attach,
    claim,
    files_of,
    fill,
    gone,
    ingest,
    the_batch,
    the_file,
    the_store,
)

Wait = Callable[[float], Awaitable[None]]


class AttachmentContract:
    """What is attached to a store, and what becomes of it when it is not any more."""

    async def test_an_attached_file_reads_back(self, store: Store, tenant: str) -> None:
        """X1: for its tenant; attributes are what they were, and numbers are floats."""
        await a_vector_store(store, tenant)
        labels: dict[str, AttributeValue] = {
            "k": "v\n\"'ü",
            "$.x": 1e22,
            "": -0.1,
            "big": 1.7e308,
            "tiny": 5e-324,
            "b": False,
        }
        [made] = await attach(store, tenant, "f", attributes=labels)
        assert (made.id, made.store, made.file_id) == ("vs/f/0", "vs", "f")
        assert (made.status, made.error, made.usage_bytes) == ("in_progress", None, 0)
        assert (made.attributes, made.chunking) == (labels, Chunking(200, 50))
        assert {type(value) for value in made.attributes.values()} == {str, float, bool}
        assert await store.get_attachment(tenant, "vs", "f") == made
        thief = f"{tenant}-thief"
        await a_vector_store(store, thief)
        assert await store.get_attachment(thief, "vs", "f") is None
        assert await store.label(thief, "vs", "f", {}) is None
        assert not await store.detach(thief, "vs", "f")
        assert await store.attach(thief, "vs", [an_attachment("f")]) == Attached([], ["f"])
        assert await files_of(store, thief) == ([], False)

    async def test_of_files_that_are_not_there_nothing_is_attached(
        self, store: Store, tenant: str, wait: Wait
    ) -> None:
        """X1: foreign, missing and expired ones are told apart by nothing; none of the others is attached."""
        await a_vector_store(store, tenant)
        await a_file_named(store, tenant, "f")
        await a_file_named(store, tenant, "old", keep=HOUR)
        await a_file_named(store, f"{tenant}-2", "foreign")
        await wait(HOUR + 1)
        names = ["f", "foreign", "missing", "old", "nul\0"]
        new = [an_attachment(name, again=number) for number, name in enumerate(names)]
        new = [NewAttachment(id=f"a{n}", file_id=each.file_id) for n, each in enumerate(new)]
        attached = await store.attach(tenant, "vs", new, batch="b")
        assert attached == Attached([], names[1:])
        assert await files_of(store, tenant) == ([], False)
        assert await store.get_batch(tenant, "vs", "b") is None
        assert await claim(store) == []
        assert await store.attach(tenant, "nobody's", new) is None

    async def test_a_store_may_begin_with_files(self, store: Store, tenant: str) -> None:
        """P2: all of it is written or nothing, and it is told what was; a repetition changes nothing."""
        await a_file_named(store, tenant, "f")
        new = NewVectorStore(id="vs", name="named vs", metadata=b"{}", expire_days=1)
        attached = await store.attach(tenant, new, [an_attachment("f"), an_attachment("g")])
        assert attached == Attached([], ["g"])
        assert await store.get_vector_store(tenant, "vs") is None
        for _ in range(2):
            attached = await store.attach(tenant, new, [an_attachment("f")], batch="b")
            assert attached == Attached(
                [await the_file(store, tenant, "f")],
                store=await the_store(store, tenant),
                batch=await the_batch(store, tenant),
            )
        assert (await the_store(store, tenant)).counts == FileCounts(in_progress=1)
        assert [each.lease.attachment for each in await claim(store)] == ["vs/f/0"]
        bad = NewVectorStore(id="bad", name="\ud800", metadata=b"{}", expire_days=None)
        with pytest.raises(InvalidRequest):
            await store.attach(tenant, bad, [an_attachment("f", to="bad")])

    async def test_attaching_is_using(self, store: Store, tenant: str, wait: Wait) -> None:
        """Its days count from then; no second call is needed that could fail."""
        await a_vector_store(store, tenant, days=1)
        await wait(100)
        await attach(store, tenant, "f")
        used = await the_store(store, tenant)
        assert used.last_active_at >= used.created_at + 100
        assert used.expires_at == used.last_active_at + DAY

    async def test_attaching_again_replaces(self, store: Store, tenant: str) -> None:
        """P4: the first time leaves nothing: no chunk, no place in the queue, and it is told to the index."""
        await a_vector_store(store, tenant)
        await attach(store, tenant, "f", "g")
        [one, two] = await claim(store)
        await fill(store, one, "first")
        await store.finish_ingestion(one.lease, None)
        again = [an_attachment(name, again=1) for name in ("f", "g")]
        attached = await store.attach(tenant, "vs", again)
        assert attached is not None
        assert [each.id for each in attached.attachments] == ["vs/f/1", "vs/g/1"]
        assert await files_of(store, tenant) == (["f", "g"], False)
        with pytest.raises(LeaseLost):
            await store.finish_ingestion(two.lease, None)
        assert await store.chunk_texts(tenant, "vs/f/0", after=-1, limit=9) == []
        found = await the_store(store, tenant)
        assert (found.counts, found.usage_bytes) == (FileCounts(in_progress=2), 0)
        assert await gone(store, tenant) == ["vs/f/0"]
        assert [each.lease.attachment for each in await claim(store)] == ["vs/f/1", "vs/g/1"]

    async def test_a_repetition_attaches_nothing_twice(self, store: Store, tenant: str) -> None:
        """P2: an answer may be lost: what was done meanwhile stays."""
        await a_vector_store(store, tenant)
        await attach(store, tenant, "f", batch="b")
        await ingest(store, "text")
        for _ in range(2):
            [kept] = await attach(store, tenant, "f", batch="b")
            assert kept.status == "completed"
        assert (await the_store(store, tenant)).counts == FileCounts(completed=1)
        assert await gone(store, tenant) == []
        assert await claim(store) == []

    async def test_of_several_for_one_file_the_last_counts(self, store: Store, tenant: str) -> None:
        """H1: a list may name a file twice."""
        await a_vector_store(store, tenant)
        for name in ("f", "g"):
            await a_file_named(store, tenant, name)
        names = ("f", "g", "f")
        new = [an_attachment(name, again=number) for number, name in enumerate(names)]
        attached = await store.attach(tenant, "vs", new)
        assert attached is not None
        assert {each.id for each in attached.attachments} == {"vs/g/1", "vs/f/2"}
        assert (await the_store(store, tenant)).counts == FileCounts(in_progress=2)

    @pytest.mark.parametrize("order", ["asc", "desc"])
    @pytest.mark.parametrize("batch", [None, "b"])
    async def test_files_are_listed_in_the_order_in_which_they_were_attached(
        self, store: Store, tenant: str, order: Order, batch: str | None
    ) -> None:
        """H2: by pages in both directions, by batch, by status; cursors are ids of files."""
        await a_vector_store(store, tenant)
        await a_vector_store(store, tenant, "other")
        await attach(store, tenant, *"badce", batch=batch)
        await attach(store, tenant, *"fb", to="other", batch="another")
        wanted = "badce" if order == "asc" else "ecdab"

        async def page(limit: int = 9, **window: Any) -> tuple[str, bool]:
            found, more = await files_of(
                store, tenant, limit=limit, order=order, batch=batch, **window
            )
            return "".join(found), more

        assert await page() == (wanted, False)
        assert await page(2) == (wanted[:2], True)
        assert await page(2, after=wanted[1]) == (wanted[2:4], True)
        assert await page(2, before=wanted[4]) == (wanted[2:4], True)
        assert await page(3, before=wanted[2]) == (wanted[:2], False)
        assert await page(1, after=wanted[0], before=wanted[3]) == (wanted[1], True)
        [first, *_] = await store.claim_ingestions("w", 30.0, limit=1)
        await store.finish_ingestion(first.lease, None)
        assert await page(status="completed") == ("b", False)
        unfinished = wanted.replace("b", "")
        assert await page(2, status="in_progress") == (unfinished[:2], True)
        assert await page(status="in_progress", after="b") == (
            wanted[wanted.index("b") + 1 :],
            False,
        )
        assert await page(status="failed", after="b") == ("", False)
        for param in ("after", "before"):
            with pytest.raises(InvalidRequest) as refused:
                await page(9, **{param: "f"})
            assert refused.value.param == param

    async def test_a_batch_lists_its_own(self, store: Store, tenant: str) -> None:
        """X1: not those that were attached otherwise, not under another store, not for others."""
        await a_vector_store(store, tenant)
        await a_vector_store(store, tenant, "other")
        await attach(store, tenant, "a", "b", batch="b")
        await attach(store, tenant, "c", batch="c")
        await attach(store, tenant, "d")
        assert await files_of(store, tenant, batch="b") == (["a", "b"], False)
        assert await files_of(store, tenant, "other", batch="b") == ([], False)
        with pytest.raises(InvalidRequest):
            await files_of(store, tenant, batch="b", after="c")
        assert (await the_batch(store, tenant)).counts == FileCounts(in_progress=2)
        thief = f"{tenant}-thief"
        await a_vector_store(store, thief)
        for owner, name in ((tenant, "other"), (thief, "vs")):
            assert await store.get_batch(owner, name, "b") is None
            assert await store.cancel_batch(owner, name, "b") is None
        assert not (await the_batch(store, tenant)).cancelled

    async def test_labels_are_replaced(self, store: Store, tenant: str) -> None:
        """T8: and the rest stays."""
        await a_vector_store(store, tenant)
        [made] = await attach(store, tenant, "f", attributes={"a": 1.0})
        changed = await store.label(tenant, "vs", "f", {"b": True})
        assert changed is not None
        assert changed.attributes == {"b": True}
        assert (changed.id, changed.status) == (made.id, made.status)
        assert await the_file(store, tenant, "f") == changed
        assert await store.label(tenant, "vs", "nobody's", {}) is None

    async def test_a_detached_file_leaves_nothing(
        self, store: Store, tenant: str, wait: Wait
    ) -> None:
        """P4: its owner loses it; the index is told when that one's lease is over: it may be inserting."""
        await a_vector_store(store, tenant)
        await attach(store, tenant, "f", "g")
        [one, two] = await claim(store)
        for each in (one, two):
            await fill(store, each, "text")
        await store.finish_ingestion(one.lease, None)
        for name in ("f", "g"):
            assert await store.detach(tenant, "vs", name)
            assert not await store.detach(tenant, "vs", name)
            assert await store.chunk_texts(tenant, f"vs/{name}/0", after=-1, limit=9) == []
        assert await store.renew_ingestions([two.lease], 30.0) == [two.lease]
        with pytest.raises(LeaseLost):
            await store.store_chunks(two.lease, 1, ["late"], last=True)
        await store.store_vectors(tenant, "vs/g/0", model="m", vectors=[(0, VECTOR)])
        with pytest.raises(LeaseLost):
            await store.finish_ingestion(two.lease, None)
        assert await store.chunks(tenant, "vs/g/0", model="m", after=-1, limit=9) == []
        found = await the_store(store, tenant)
        assert (found.counts, found.usage_bytes) == (FileCounts(), 0)
        assert await gone(store, tenant) == ["vs/f/0"]
        await store.forget_removals(tenant, ["vs/f/0", "vs/g/0"])
        await wait(31)
        assert await gone(store, tenant) == ["vs/g/0"]
        await store.forget_removals(f"{tenant}-thief", ["vs/g/0"])
        assert await gone(store, tenant) == ["vs/g/0"]
        await store.forget_removals(tenant, ["vs/g/0"])
        assert await gone(store, tenant) == []

    async def test_a_deleted_file_is_detached_everywhere(self, store: Store, tenant: str) -> None:
        """P7: from all stores of its tenant, and only there."""
        other = f"{tenant}-2"
        for owner in (tenant, other):
            for name in ("vs", "vs2"):
                await a_vector_store(store, owner, name)
                await attach(store, owner, "f", "g", to=name)
        await ingest(store, "text")
        assert await store.delete_file(tenant, "f")
        assert await gone(store, tenant) == ["vs/f/0", "vs2/f/0"]
        for name in ("vs", "vs2"):
            assert await files_of(store, tenant, name) == (["g"], False)
            assert await store.chunk_texts(tenant, f"{name}/f/0", after=-1, limit=9) == []
            assert (await the_store(store, tenant, name)).counts == FileCounts(completed=1)
            assert (await the_store(store, other, name)).counts == FileCounts(completed=2)
        assert await gone(store, other) == []

    async def test_an_expired_file_is_detached_everywhere(
        self, store: Store, tenant: str, wait: Wait
    ) -> None:
        """P7: by the sweep of files; before that, nothing of it is found."""
        await a_file_named(store, tenant, "f", keep=HOUR)
        for name in ("vs", "vs2"):
            await a_vector_store(store, tenant, name)
            await attach(store, tenant, "f", to=name)
        await ingest(store, "text")
        places = [("vs/f/0", 0), ("vs2/f/0", 0)]
        assert set(await store.found(tenant, places)) == set(places)
        await wait(HOUR + 1)
        assert await store.found(tenant, places) == {}
        assert not await store.delete_file(tenant, "f")
        assert await gone(store, tenant) == []
        assert await store.remove_expired_files(limit=9) == 1
        assert await gone(store, tenant) == ["vs/f/0", "vs2/f/0"]
        assert (await the_store(store, tenant)).counts == FileCounts()
        assert await store.get_attachment(tenant, "vs2", "f") is None

    async def test_a_cancelled_batch_keeps_what_was_done(
        self, store: Store, tenant: str, wait: Wait
    ) -> None:
        """P4: what is in progress ends as cancelled, without chunks, and its owner loses it."""
        await a_vector_store(store, tenant)
        await attach(store, tenant, "done", "at-work", "waiting", batch="b")
        await attach(store, tenant, "alone")
        one, two = await claim(store, limit=2)
        for each in (one, two):
            await fill(store, each, "text")
        await store.finish_ingestion(one.lease, None)
        cancelled = await store.cancel_batch(tenant, "vs", "b")
        assert cancelled is not None
        assert cancelled.cancelled
        assert cancelled.counts == FileCounts(completed=1, cancelled=2)
        assert await the_batch(store, tenant) == cancelled
        assert await store.cancel_batch(tenant, "vs", "b") == cancelled
        with pytest.raises(LeaseLost):
            await store.finish_ingestion(two.lease, None)
        assert await store.chunk_texts(tenant, "vs/at-work/0", after=-1, limit=9) == []
        assert (await the_file(store, tenant, "waiting")).status == "cancelled"
        counts = (await the_store(store, tenant)).counts
        assert counts == FileCounts(completed=1, cancelled=2, in_progress=1)
        assert [each.file_id for each in await claim(store)] == ["alone"]
        assert await gone(store, tenant) == ["vs/waiting/0"]
        await wait(31)
        assert await gone(store, tenant) == ["vs/at-work/0", "vs/waiting/0"]
        assert await store.detach(tenant, "vs", "waiting")
        assert (await the_batch(store, tenant)).counts == FileCounts(completed=1, cancelled=1)

    async def test_a_batch_that_is_done_is_not_cancelled(self, store: Store, tenant: str) -> None:
        """H1: cancelling what has ended leaves it as it is."""
        await a_vector_store(store, tenant)
        await attach(store, tenant, "done", batch="b")
        await ingest(store, "text")
        before = await the_batch(store, tenant)
        assert await store.cancel_batch(tenant, "vs", "b") == before
        assert not before.cancelled

    @pytest.mark.parametrize("then", ["detach", "replace", "delete_file", "delete_store"])
    async def test_what_was_cancelled_and_is_detached_waits_for_its_owner(
        self, store: Store, tenant: str, wait: Wait, then: str
    ) -> None:
        """P4: whoever had the lease may be inserting until its end, whatever happens to the file."""
        await a_vector_store(store, tenant)
        await attach(store, tenant, "f", batch="b")
        [claimed] = await claim(store)
        await fill(store, claimed, "text")
        await store.cancel_batch(tenant, "vs", "b")
        if then == "detach":
            await store.detach(tenant, "vs", "f")
        elif then == "replace":
            await store.attach(tenant, "vs", [an_attachment("f", again=1)])
        elif then == "delete_file":
            await store.delete_file(tenant, "f")
        else:
            await store.delete_vector_store(tenant, "vs")
        assert await gone(store, tenant) == []
        await store.forget_removals(tenant, ["vs/f/0"])
        await wait(31)
        assert await gone(store, tenant) == ["vs/f/0"]

    async def test_of_attach_and_delete_one_wins(self, store: Store, tenant: str) -> None:
        """X1, P7: whatever comes first, no file that is gone stays attached."""
        for number in range(10):
            name, file_id = f"vs{number}", f"f{number}"
            await a_vector_store(store, tenant, name)
            await attach(store, tenant, f"g{number}", to=name)
            await a_file_named(store, tenant, file_id)
            new = [an_attachment(file_id, to=name)]
            async with asyncio.timeout(20):
                await asyncio.gather(
                    store.attach(tenant, name, new),
                    store.delete_file(tenant, file_id),
                    store.attach(tenant, name, [an_attachment(f"g{number}", to=name, again=1)]),
                    store.delete_vector_store(tenant, name)
                    if number % 2
                    else store.touch_vector_stores(tenant, [name]),
                )
            assert await store.get_attachment(tenant, name, file_id) is None
            left = await files_of(store, tenant, name)
            assert left == (([], False) if number % 2 else ([f"g{number}"], False))
        waiting = {each.lease.attachment for each in await claim(store)}
        assert waiting == {f"vs{number}/g{number}/1" for number in range(0, 10, 2)}

    async def test_of_writing_and_detaching_one_wins(self, store: Store, tenant: str) -> None:
        """P4: no chunk is left of what is detached, and its removal is noted, whoever was first."""
        await a_vector_store(store, tenant)
        names = [f"f{number}" for number in range(20)]
        await attach(store, tenant, *names)
        claims = await store.claim_ingestions("w", 30.0, limit=99)
        chunks = ["late"] * 50

        async def write(number: int) -> None:
            lease = claims[number].lease
            await store.store_chunks(lease, 0, chunks, last=False)
            await store.store_chunks(lease, 50, chunks, last=True)
            await store.finish_ingestion(lease, None)

        async with asyncio.timeout(30):
            done = await asyncio.gather(
                *(write(number) for number in range(20)),
                *(store.detach(tenant, "vs", name) for name in names),
                return_exceptions=True,
            )
        assert {type(each) for each in done} <= {type(None), LeaseLost, bool}
        assert done[20:] == [True] * 20
        for name in names:
            assert await store.chunk_texts(tenant, f"vs/{name}/0", after=-1, limit=9) == []
        assert (await the_store(store, tenant)).counts == FileCounts()
        assert len(await gone(store, tenant)) == sum(each is None for each in done[:20])
