"""Vector stores, their files and ingestions, as the tests of stores write them."""

from __future__ import annotations

from engine.ports import (
    AttachmentStatus,
    Attributes,
    Blob,
    Chunking,
    IngestionClaim,
    NewAttachment,
    NewFile,
    NewVectorStore,
    Order,
    Store,
    StoredAttachment,
    StoredBatch,
    StoredVectorStore,
)

HOUR, DAY = 3600, 86_400
VECTOR = b"\x00\x00\x80\x3f" * 2


async def a_file_named(store: Store, tenant: str, name: str, *, keep: int | None = None) -> None:
    """Write a file of one blob."""
    blob = Blob(f"{name:0>32}", 3, b"sha")
    await store.reserve_blob(tenant, blob.key, HOUR)
    new = NewFile(id=name, purpose="assistants", filename=f"{name}.txt", keep_seconds=keep)
    assert await store.add_file(tenant, new, blob) is not None


async def a_vector_store(
    store: Store, tenant: str, name: str = "vs", *, days: int | None = None
) -> StoredVectorStore:
    """Write a vector store."""
    new = NewVectorStore(id=name, name=f"named {name}", metadata=b'{"a":"b"}', expire_days=days)
    return await store.add_vector_store(tenant, new)


def an_attachment(
    file_id: str, *, to: str = "vs", attributes: Attributes | None = None, again: int = 0
) -> NewAttachment:
    """Return an attachment whose id tells the file and the store, and how often it was attached before."""
    name = f"{to}/{file_id}/{again}"
    chunking = Chunking(200, 50)
    return NewAttachment(id=name, file_id=file_id, attributes=attributes or {}, chunking=chunking)


async def attach(
    store: Store,
    tenant: str,
    *file_ids: str,
    to: str = "vs",
    batch: str | None = None,
    attributes: Attributes | None = None,
) -> list[StoredAttachment]:
    """Attach files, which are written first where they are not there."""
    for file_id in file_ids:
        if await store.get_file(tenant, file_id) is None:
            await a_file_named(store, tenant, file_id)
    new = [an_attachment(each, to=to, attributes=attributes) for each in file_ids]
    attached = await store.attach(tenant, to, new, batch=batch)
    assert attached is not None
    assert attached.unknown == []
    return attached.attachments


async def claim(store: Store, limit: int = 99, worker: str = "w/0#1") -> list[IngestionClaim]:
    """Claim ingestions for 30 seconds."""
    return await store.claim_ingestions(worker, 30.0, limit=limit)


async def fill(store: Store, claimed: IngestionClaim, *texts: str) -> None:
    """Store chunks and their vectors."""
    chunks = list(texts)
    await store.store_chunks(claimed.lease, 0, chunks, last=True)
    vectors = [(number, VECTOR) for number in range(len(texts))]
    lease = claimed.lease
    await store.store_vectors(lease.tenant, lease.attachment, model="m", vectors=vectors)


async def ingest(store: Store, *texts: str) -> None:
    """Do all that waits: every file has these chunks, which end with its id."""
    for claimed in await claim(store):
        await fill(store, claimed, *(f"{text} {claimed.file_id}" for text in texts))
        await store.finish_ingestion(claimed.lease, None)


async def some_retrieval(store: Store, *tenants: str) -> None:
    """Write stores, each with a file that is complete, one that is in progress, and one that is gone."""
    for tenant in tenants:
        await a_vector_store(store, tenant)
        await attach(store, tenant, "done", "gone", batch="b")
        await ingest(store, "text")
        await store.detach(tenant, "vs", "gone")
    for tenant in tenants:
        await attach(store, tenant, "waiting")


async def the_store(store: Store, tenant: str, name: str = "vs") -> StoredVectorStore:
    """Return a vector store that there is."""
    found = await store.get_vector_store(tenant, name)
    assert found is not None
    return found


async def the_batch(store: Store, tenant: str, batch: str = "b") -> StoredBatch:
    """Return a batch that there is."""
    found = await store.get_batch(tenant, "vs", batch)
    assert found is not None
    return found


async def the_file(store: Store, tenant: str, file_id: str, name: str = "vs") -> StoredAttachment:
    """Return a file of a vector store that there is."""
    found = await store.get_attachment(tenant, name, file_id)
    assert found is not None
    return found


async def files_of(
    store: Store,
    tenant: str,
    name: str = "vs",
    *,
    limit: int = 99,
    after: str | None = None,
    before: str | None = None,
    order: Order = "asc",
    status: AttachmentStatus | None = None,
    batch: str | None = None,
) -> tuple[list[str], bool]:
    """Return the ids of the files of a page, and whether there are more."""
    page = await store.list_attachments(
        tenant,
        name,
        limit=limit,
        after=after,
        before=before,
        order=order,
        status=status,
        batch=batch,
    )
    return [each.file_id for each in page.attachments], page.has_more


async def gone(store: Store, tenant: str) -> list[str]:
    """Return what of a tenant is to be removed from the index."""
    return sorted(
        each.attachment for each in await store.removals(limit=999) if each.tenant == tenant
    )
