"""Steps with vector stores that two stores are compared by."""

from __future__ import annotations

from typing import Any

from engine.ports import (
    Attached,
    AttributeValue,
    Chunking,
    Comparison,
    IngestionClaim,
    IngestionLease,
    NewAttachment,
    NewVectorStore,
    Order,
    Store,
    StoreChange,
    StoredAttachment,
    StoredVectorStore,
)

_TENANTS = ("a", "b")
_STORES = ("vs0", "vs1")
_FILES = tuple(f"f{number}" for number in range(16))
_ORDERS: tuple[Order, Order] = ("asc", "desc")


class VectorStorePlay:
    """Steps on one side; each returns what can be compared."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._attached = 0
        self._ingestions: list[IngestionLease] = []

    def _at(self, which: int, count: int) -> tuple[str, str]:
        return _TENANTS[which % 2], _STORES[count % 2]

    def _ingestion(self, which: int) -> IngestionLease:
        known = self._ingestions
        return known[-1 - which % len(known)] if known else IngestionLease("a", "none", 1)

    async def _collect(self, which: int, count: int) -> Any:
        tenant, name = self._at(which, count)
        days = (None, 1)[which // 2 % 2]
        new = NewVectorStore(id=name, name="n", metadata=b"{}", expire_days=days)
        await self._store.add_vector_store(tenant, new)
        change = StoreChange(name=f"n{count}", expire_days=days)
        return _shown(await self._store.update_vector_store(tenant, name, change))

    async def _uncollect(self, which: int, count: int) -> bool:
        return await self._store.delete_vector_store(*self._at(which, count))

    async def _use(self, which: int, count: int) -> None:
        tenant, _ = self._at(which, count)
        await self._store.touch_vector_stores(tenant, _STORES[: 1 + count % 2])

    async def _attach(self, which: int, count: int) -> Any:
        """Attach up to three files, of which some may not be there."""
        tenant, name = self._at(which, count)
        new = []
        for number in range(1 + count % 3):
            self._attached += 1
            file_id = _FILES[(which + 2 * number) % 16]
            labels: dict[str, AttributeValue] = {"n": "text"}
            if which % 3:
                labels = {"n": float(which), "s": file_id}
            attachment = f"{tenant}-{self._attached}"
            new.append(
                NewAttachment(
                    id=attachment, file_id=file_id, attributes=labels, chunking=Chunking(100, count)
                )
            )
        batch = f"batch-{self._attached}" if count == 3 else None
        attached = await self._store.attach(tenant, name, new, batch=batch)
        if not isinstance(attached, Attached):
            return attached
        return [_file(each) for each in attached.attachments], attached.unknown

    async def _begin(self, which: int, count: int) -> Any:
        """Write a store of its own with two files, which may not be there."""
        tenant, _ = self._at(which, count)
        self._attached += 1
        name = f"begun-{self._attached}"
        new = NewVectorStore(id=name, name="n", metadata=b"{}", expire_days=None)
        files = [
            NewAttachment(
                id=f"{tenant}-{name}-{number}",
                file_id=_FILES[(which + 2 * number) % 16],
                attributes={},
                chunking=Chunking(100, 0),
            )
            for number in range(2)
        ]
        attached = await self._store.attach(tenant, new, files, batch=f"batch-{name}")
        assert attached is not None
        batch = None if attached.batch is None else attached.batch.counts
        there = _shown(await self._store.get_vector_store(tenant, name))
        return attached.unknown, _shown(attached.store), batch, there

    async def _detach(self, which: int, count: int) -> bool:
        return await self._store.detach(*self._at(which, count), _FILES[which])

    async def _label(self, which: int, count: int) -> Any:
        tenant, name = self._at(which, count)
        found = await self._store.label(tenant, name, _FILES[which], {"n": float(count)})
        return None if found is None else _file(found)

    async def _cancel_batch(self, which: int, count: int) -> Any:
        tenant, name = self._at(which, count)
        batch = f"batch-{self._attached - which % 3}"
        found = await self._store.cancel_batch(tenant, name, batch)
        return None if found is None else (found.cancelled, found.counts)

    async def _ingest(self, which: int, count: int) -> list[IngestionClaim]:
        claims = await self._store.claim_ingestions(f"w/{which}#1", 70.0, limit=count)
        self._ingestions += [claim.lease for claim in claims]
        return claims

    async def _write(self, which: int, count: int) -> None:
        lease = self._ingestion(which)
        chunks = [f"{which}-{number}" for number in range(count)]
        await self._store.store_chunks(lease, which % 2, chunks, last=count > 1)
        vectors = [(number, bytes([which] * 4)) for number in range(count)]
        model = f"m{which % 2}"
        await self._store.store_vectors(
            lease.tenant, lease.attachment, model=model, vectors=vectors
        )

    async def _end_ingestion(self, which: int, count: int) -> None:
        error = None if count else ("invalid_file", f"wrong {which}")
        await self._store.finish_ingestion(self._ingestion(which), error)  # type: ignore[arg-type]

    async def _put_back(self, which: int, count: int) -> None:
        await self._store.put_back_ingestion(
            self._ingestion(which), seconds=30.0 * (count % 2), counts=count % 3 == 0
        )

    async def _renew_ingestion(self, which: int, count: int) -> list[IngestionLease]:
        leases = [self._ingestion(which + number) for number in range(count)]
        return await self._store.renew_ingestions(leases, 60.0)

    async def _empty(self, _which: int, _count: int) -> int:
        return await self._store.expire_vector_stores(limit=99)

    async def _drop_chunks(self, _which: int, _count: int) -> None:
        while await self._store.drop_chunks():
            pass

    async def _unindex(self, which: int, _count: int) -> list[str]:
        tenant = _TENANTS[which % 2]
        found = [each for each in await self._store.removals(limit=99) if each.tenant == tenant]
        names = sorted(each.attachment for each in found)
        await self._store.forget_removals(tenant, names)
        return names


async def told_of_vector_stores(store: Store, tenant: str) -> list[Any]:
    """Return everything that can be seen of a tenant's vector stores."""
    page = await store.list_vector_stores(tenant, limit=9, after=None, before=None, order="desc")
    seen: list[Any] = [[_shown(each) for each in page.stores]]
    for name in _STORES:
        files: list[StoredAttachment] = []
        for order in _ORDERS:
            listed = await store.list_attachments(
                tenant, name, limit=9, after=None, before=None, order=order
            )
            files = listed.attachments
            seen.append([_file(each) for each in files])
        for wanted in (Comparison("gt", "n", 3.0), Comparison("ne", "s", "f5")):
            seen.append(await store.matching(tenant, name, wanted, limit=9))
        for each in files:
            seen.append(await store.chunks(tenant, each.id, model="m1", after=-1, limit=9))
            seen.append(await store.chunk_count(tenant, each.id, model="m1"))
            seen.append(await store.found(tenant, [(each.id, 0), (each.id, 1)]))
    seen.append(sorted(each.attachment for each in await store.removals(limit=999)))
    seen.append(await store.completed_attachments(after=None, limit=999))
    return seen


def _shown(store: StoredVectorStore | None) -> Any:
    """Return of a store what does not tell when it was made: time passes differently for each of the two."""
    if store is None:
        return None
    return store.id, store.name, store.expire_days, store.expired, store.usage_bytes, store.counts


def _file(each: StoredAttachment) -> Any:
    return each.id, each.file_id, each.status, each.error, each.usage_bytes, each.attributes
