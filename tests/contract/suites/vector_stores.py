"""Vector stores: reading, listing, changing, expiring, deleting."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from engine.errors import InvalidRequest
from engine.ports import FileCounts, NewVectorStore, Order, Store, StoreChange
from tests.support.vector_stores import (
    DAY,
    HOUR,
    a_vector_store,
    an_attachment,
    attach,
    files_of,
    gone,
    ingest,
    the_store,
)

Wait = Callable[[float], Awaitable[None]]


class VectorStoreContract:
    """What there is of a store, for whom, and for how long."""

    async def test_a_vector_store_reads_back(self, store: Store, tenant: str) -> None:
        """X1: for its tenant alone; writing it twice is writing it once."""
        new = NewVectorStore(
            id="vs", name="Ω\n'", description="d", metadata=b'{"\\u0000":1}', expire_days=3
        )
        made = await store.add_vector_store(tenant, new)
        assert (made.id, made.name, made.description) == ("vs", "Ω\n'", "d")
        assert (made.metadata, made.expire_days, made.expired) == (b'{"\\u0000":1}', 3, False)
        assert made.created_at == made.last_active_at
        assert made.expires_at == made.created_at + 3 * DAY
        assert (made.counts, made.usage_bytes) == (FileCounts(), 0)
        assert await store.get_vector_store(tenant, "vs") == made
        assert await store.add_vector_store(tenant, new) == made
        thief = f"{tenant}-thief"
        assert await store.get_vector_store(thief, "vs") is None
        assert await store.update_vector_store(thief, "vs", StoreChange(name="x")) is None
        assert not await store.delete_vector_store(thief, "vs")
        await a_vector_store(store, thief)
        assert await store.get_vector_store(tenant, "vs") == made

    @pytest.mark.parametrize("name", ["nul\0", "surrogate\ud800"])
    async def test_a_name_that_cannot_be_stored_is_refused(
        self, store: Store, tenant: str, name: str
    ) -> None:
        """H1: in a new store and in a change; an id like that is nobody's."""
        with pytest.raises(InvalidRequest) as refused:
            await store.add_vector_store(tenant, NewVectorStore(id="vs", name=name, metadata=b""))
        assert refused.value.param == "name"
        await a_vector_store(store, tenant)
        with pytest.raises(InvalidRequest):
            await store.update_vector_store(tenant, "vs", StoreChange(name=name))
        assert await store.get_vector_store(tenant, name) is None
        assert await store.get_attachment(tenant, name, name) is None
        assert not await store.delete_vector_store(tenant, name)

    @pytest.mark.parametrize("order", ["asc", "desc"])
    async def test_vector_stores_are_listed_by_creation_in_both_directions(
        self, store: Store, tenant: str, order: Order
    ) -> None:
        """H2: `before` gives what is nearest to it; pages join without gap."""
        for name in "badce":
            await a_vector_store(store, tenant, name)
        await a_vector_store(store, f"{tenant}-2", "f")

        async def page(
            limit: int, after: str | None = None, before: str | None = None
        ) -> tuple[str, bool]:
            found = await store.list_vector_stores(
                tenant, limit=limit, after=after, before=before, order=order
            )
            return "".join(each.id for each in found.stores), found.has_more

        wanted = "badce" if order == "asc" else "ecdab"
        assert await page(9) == (wanted, False)
        assert await page(2) == (wanted[:2], True)
        assert await page(2, after=wanted[1]) == (wanted[2:4], True)
        assert await page(2, after=wanted[3]) == (wanted[4:], False)
        assert await page(2, before=wanted[4]) == (wanted[2:4], True)
        assert await page(2, before=wanted[2]) == (wanted[:2], False)
        assert await page(9, before=wanted[0]) == ("", False)
        assert await page(1, after=wanted[0], before=wanted[3]) == (wanted[1], True)
        assert await page(2, after=wanted[0], before=wanted[3]) == (wanted[1:3], False)
        assert await page(9, after=wanted[3], before=wanted[1]) == ("", False)
        for param in ("after", "before"):
            for cursor in ("f", "nul\0"):
                with pytest.raises(InvalidRequest) as refused:
                    await page(1, **{param: cursor})
                assert refused.value.param == param

    async def test_a_change_sets_what_it_names(self, store: Store, tenant: str) -> None:
        """H1: the rest stays, and `expire_days` counts from the last activity."""
        made = await a_vector_store(store, tenant, days=2)
        changed = await store.update_vector_store(tenant, "vs", StoreChange(name="other"))
        assert changed is not None
        assert (changed.name, changed.metadata, changed.expire_days) == ("other", b'{"a":"b"}', 2)
        changed = await store.update_vector_store(
            tenant, "vs", StoreChange(metadata=b"{}", expire_days=7)
        )
        assert changed is not None
        assert (changed.name, changed.metadata) == ("other", b"{}")
        assert changed.expires_at == made.last_active_at + 7 * DAY
        changed = await store.update_vector_store(tenant, "vs", StoreChange(expire_days=None))
        assert changed is not None
        assert (changed.expire_days, changed.expires_at) == (None, None)
        assert await store.get_vector_store(tenant, "vs") == changed

    async def test_what_is_used_lives_longer(self, store: Store, tenant: str, wait: Wait) -> None:
        """P7: its time counts from the last use; within a minute it need not be written again."""
        await a_vector_store(store, tenant, days=1)
        await a_vector_store(store, tenant, "other", days=1)
        await wait(DAY - 10)
        await store.touch_vector_stores(f"{tenant}-thief", ["vs"])
        await store.touch_vector_stores(tenant, ["vs", "nobody's"])
        await wait(20)
        await store.touch_vector_stores(tenant, ["vs", "other"])
        assert not (await the_store(store, tenant)).expired
        assert (await the_store(store, tenant, "other")).expired
        await wait(DAY - 5)
        assert (await the_store(store, tenant)).expired

    async def test_what_has_expired_stays_without_files(
        self, store: Store, tenant: str, wait: Wait
    ) -> None:
        """P7: nothing revives it, nothing is attached to it or found in it, and its files are detached."""
        await a_vector_store(store, tenant, days=1)
        await a_vector_store(store, tenant, "other")
        await attach(store, tenant, "f", "g", batch="b")
        await ingest(store, "text")
        await attach(store, tenant, "f", to="other")
        assert await store.expire_vector_stores(limit=9) == 0
        await wait(DAY + 1)
        assert await store.attach(tenant, "vs", [an_attachment("f", again=1)]) is None
        assert await store.found(tenant, [("vs/f/0", 0)]) == {}
        await store.update_vector_store(tenant, "vs", StoreChange(name="late", expire_days=None))
        assert await store.expire_vector_stores(limit=9) == 1
        assert await store.expire_vector_stores(limit=9) == 0
        await store.touch_vector_stores(tenant, ["vs"])
        left = await the_store(store, tenant)
        assert (left.expired, left.name, left.counts) == (True, "late", FileCounts())
        assert (left.usage_bytes, await files_of(store, tenant)) == (0, ([], False))
        assert await store.get_batch(tenant, "vs", "b") is None
        assert await gone(store, tenant) == ["vs/f/0", "vs/g/0"]
        assert await files_of(store, tenant, "other") == (["f"], False)
        assert await store.delete_vector_store(tenant, "vs")
        assert await store.get_vector_store(tenant, "vs") is None

    async def test_no_more_stores_are_emptied_than_was_asked_for(
        self, store: Store, tenant: str, wait: Wait
    ) -> None:
        """P7: the rest is there for the next sweep."""
        for number in range(5):
            await a_vector_store(store, tenant, f"vs{number}", days=1)
        await wait(DAY + 1)
        assert [await store.expire_vector_stores(limit=2) for _ in range(4)] == [2, 2, 1, 0]

    async def test_a_deleted_store_takes_everything_along(self, store: Store, tenant: str) -> None:
        """P7: files, batches, chunks and ingestions, and nothing of other stores."""
        await a_vector_store(store, tenant)
        await a_vector_store(store, tenant, "other")
        await attach(store, tenant, "f", batch="b")
        await attach(store, tenant, "f", to="other")
        await ingest(store, "text")
        await attach(store, tenant, "g")
        assert await store.delete_vector_store(tenant, "vs")
        assert not await store.delete_vector_store(tenant, "vs")
        assert await store.get_vector_store(tenant, "vs") is None
        assert await files_of(store, tenant) == ([], False)
        assert await store.get_batch(tenant, "vs", "b") is None
        assert await store.chunk_texts(tenant, "vs/f/0", after=-1, limit=9) == []
        assert await store.claim_ingestions("w", 30.0, limit=9) == []
        assert await store.attach(tenant, "vs", [an_attachment("f")]) is None
        assert await gone(store, tenant) == ["vs/f/0", "vs/g/0"]
        assert await store.chunk_texts(tenant, "other/f/0", after=-1, limit=9) == ["text f"]
        page = await store.list_vector_stores(tenant, limit=9, after=None, before=None, order="asc")
        assert [each.id for each in page.stores] == ["other"]

    async def test_a_store_of_many_files_goes_with_the_sweep(
        self, store: Store, tenant: str
    ) -> None:
        """P7: it is not seen any more at once, whatever is left of it."""
        await a_vector_store(store, tenant)
        names = [f"f{number}" for number in range(520)]
        await attach(store, tenant, *names, batch="b")
        await ingest(store, "text")
        assert await store.delete_vector_store(tenant, "vs")
        assert await store.get_vector_store(tenant, "vs") is None
        assert await store.get_attachment(tenant, "vs", "f519") is None
        assert await store.get_batch(tenant, "vs", "b") is None
        assert await files_of(store, tenant, order="desc") == ([], False)
        assert await store.found(tenant, [(f"vs/{name}/0", 0) for name in names]) == {}
        page = await store.list_vector_stores(tenant, limit=9, after=None, before=None, order="asc")
        assert page.stores == []
        await store.expire_vector_stores(limit=9)
        assert await gone(store, tenant) == sorted(f"vs/{name}/0" for name in names)
        assert await store.completed_attachments(after=None, limit=9) == []
        assert await store.expire_vector_stores(limit=9) == 0

    async def test_a_tenant_takes_its_vector_stores_along(self, store: Store, tenant: str) -> None:
        """X1: and nobody else's."""
        other = f"{tenant}-2"
        for owner in (tenant, other):
            await a_vector_store(store, owner)
            await a_vector_store(store, owner, "expiring", days=1)
            await attach(store, owner, "f", batch="b")
        await ingest(store, "text")
        await store.remove_tenant(tenant, limit=1)
        assert await store.get_vector_store(tenant, "vs") is None
        assert await store.chunk_texts(tenant, "vs/f/0", after=-1, limit=9) == []
        assert await gone(store, tenant) == ["vs/f/0"]
        assert await store.chunk_texts(other, "vs/f/0", after=-1, limit=9) == ["text f"]
        assert (await the_store(store, other)).counts == FileCounts(completed=1)

    async def test_sums_are_right_whatever_happens_at_once(self, store: Store, tenant: str) -> None:
        """P4: files are attached, ended, cancelled and detached side by side; counts tell what is there."""
        await a_vector_store(store, tenant)
        names = [f"f{number}" for number in range(24)]
        await attach(store, tenant, *names, batch="b")
        claims = await store.claim_ingestions("w", HOUR, limit=12)
        async with asyncio.timeout(30):
            await asyncio.gather(
                *(store.finish_ingestion(each.lease, None) for each in claims[::2]),
                *(
                    store.finish_ingestion(each.lease, ("server_error", "no"))
                    for each in claims[1::2]
                ),
                *(store.detach(tenant, "vs", name) for name in names[12:18]),
                *(attach(store, tenant, f"g{number}") for number in range(4)),
                store.touch_vector_stores(tenant, ["vs"]),
            )
            await store.cancel_batch(tenant, "vs", "b")
        counts = (await the_store(store, tenant)).counts
        assert counts == FileCounts(in_progress=4, completed=6, cancelled=6, failed=6)
        for status in ("in_progress", "completed", "cancelled", "failed"):
            listed, _ = await files_of(store, tenant, status=status)
            assert len(listed) == getattr(counts, status)
