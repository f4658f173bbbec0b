"""Vector stores, what is attached to them, and what of it is found, in memory."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import msgspec

from engine.api.filters import matches
from engine.ports import (
    Attached,
    AttachmentPage,
    AttachmentStatus,
    Attributes,
    Filter,
    FoundChunk,
    NewAttachment,
    NewVectorStore,
    Order,
    StoreChange,
    StoredAttachment,
    StoredBatch,
    StoredVectorStore,
    VectorStorePage,
)
from storage.limits import check_attached, check_vector_store, last_of_each
from storage.memory.files import MemoryFiles
from storage.memory.ingestions import MemoryIngestions
from storage.memory.pages import between, ordered, page_of
from storage.memory.vector_records import (
    Attachment,
    Batch,
    Ingestion,
    Owner,
    VectorStore,
    counts_of,
)

_MINUTE = 60.0


class MemoryVectorStores(MemoryIngestions, MemoryFiles):
    """`engine.ports.VectorStoreStore` and `FileStore` in memory; `clock` tells Unix seconds."""

    _clock: Callable[[], float]

    def __init__(self, clock: Callable[[], float]) -> None:
        MemoryFiles.__init__(self, clock)
        MemoryIngestions.__init__(self)
        self._attached = 0

    # -- stores -----------------------------------------------------------------------------------

    async def add_vector_store(self, tenant: str, new: NewVectorStore) -> StoredVectorStore:
        """Write a store; raises `InvalidRequest` for texts that cannot be stored."""
        check_vector_store(tenant, new.id, new.name, new.description)
        now = self._clock()
        store = VectorStore(
            new.id, new.name, new.description, new.metadata, now, now, new.expire_days
        )
        mine = self._owners.setdefault(tenant, Owner()).stores
        return self._shown(mine.setdefault(new.id, store))

    async def get_vector_store(self, tenant: str, store: str) -> StoredVectorStore | None:
        """Return the store, or None."""
        found = self._owner(tenant).stores.get(store)
        return None if found is None else self._shown(found)

    async def list_vector_stores(
        self, tenant: str, *, limit: int, after: str | None, before: str | None, order: Order
    ) -> VectorStorePage:
        """Return a page by creation."""
        found = ordered(list(self._owner(tenant).stores.values()), order)
        found = between(found, [each.id for each in found], after=after, before=before)
        page, more = page_of(found, limit, after=after, before=before)
        return VectorStorePage([self._shown(each) for each in page], has_more=more)

    async def update_vector_store(
        self, tenant: str, store: str, change: StoreChange
    ) -> StoredVectorStore | None:
        """Change it; None if there is no such store. The time of what has expired stays."""
        found = self._owner(tenant).stores.get(store)
        if found is None:
            return None
        if change.name is not msgspec.UNSET:
            check_vector_store(tenant, store, change.name)
            found.name = change.name
        if change.metadata is not msgspec.UNSET:
            found.metadata = change.metadata
        if change.expire_days is not msgspec.UNSET and not self._past(found.expires):
            found.expire_days = change.expire_days
        return self._shown(found)

    async def delete_vector_store(self, tenant: str, store: str) -> bool:
        """Remove a store with its attachments, batches and chunks; True if there was one."""
        found = self._owner(tenant).stores.get(store)
        if found is None:
            return False
        self._detach(tenant, found, list(found.files))
        del self._owner(tenant).stores[store]
        return True

    async def touch_vector_stores(self, tenant: str, stores: Sequence[str]) -> None:
        """Note that they were used: what is written within a minute of the last time is left out."""
        now = self._clock()
        for each in (self._live(tenant, store) for store in stores):
            if each is not None and each.last_active_at + _MINUTE <= now:
                each.last_active_at = now

    async def expire_vector_stores(self, *, limit: int) -> int:
        """Detach all files of stores whose time has come; return of how many stores."""
        old = [
            (tenant, each)
            for tenant, owner in self._owners.items()
            for each in owner.stores.values()
            if self._past(each.expires) and not each.emptied
        ][:limit]
        for tenant, each in old:
            self._detach(tenant, each, list(each.files))
            each.batches.clear()
            each.emptied = True
        return len(old)

    # -- files of stores --------------------------------------------------------------------------

    async def attach(
        self,
        tenant: str,
        store: str | NewVectorStore,
        new: Sequence[NewAttachment],
        *,
        batch: str | None = None,
    ) -> Attached | None:
        """Attach files and queue them, together with their batch if there is one, and with a new store.

        None without such a store, or if it has expired. What is attached under the same id already stays.
        """
        check_attached(tenant, batch, new)
        if isinstance(store, NewVectorStore):
            check_vector_store(tenant, store.id, store.name, store.description)
        elif self._live(tenant, store) is None:
            return None
        chosen = last_of_each(new)
        unknown = [
            each.file_id for each in chosen if await self.get_file(tenant, each.file_id) is None
        ]
        if unknown:
            return Attached([], unknown)
        if isinstance(store, NewVectorStore):
            await self.add_vector_store(tenant, store)
        name = store if isinstance(store, str) else store.id
        found = self._owner(tenant).stores[name]
        if batch is not None:
            found.batches.setdefault(batch, Batch(self._clock()))
        attached = [self._attach(tenant, found, each, batch).stored for each in chosen]
        await self.touch_vector_stores(tenant, [name])
        made = None if batch is None else await self.get_batch(tenant, name, batch)
        return Attached(attached, store=self._shown(found), batch=made)

    async def get_attachment(
        self, tenant: str, store: str, file_id: str
    ) -> StoredAttachment | None:
        """Return the file of a store, or None."""
        found = self._file_of(tenant, store, file_id)
        return None if found is None else found.stored

    async def list_attachments(
        self,
        tenant: str,
        store: str,
        *,
        limit: int,
        after: str | None,
        before: str | None,
        order: Order,
        status: AttachmentStatus | None = None,
        batch: str | None = None,
    ) -> AttachmentPage:
        """Return a page by creation; cursors are ids of files."""
        mine = self._owner(tenant).stores.get(store)
        files = list(mine.files.values()) if mine is not None else []
        found = [each for each in ordered(files, order) if batch in (None, each.batch)]
        found = between(found, [each.file_id for each in found], after=after, before=before)
        wanted = [each for each in found if status in (None, each.status)]
        page, more = page_of(wanted, limit, after=after, before=before)
        return AttachmentPage([each.stored for each in page], has_more=more)

    async def label(
        self, tenant: str, store: str, file_id: str, attributes: Attributes
    ) -> StoredAttachment | None:
        """Replace the attributes of a file; None if it is not attached."""
        found = self._file_of(tenant, store, file_id)
        if found is None:
            return None
        found.attributes = attributes
        return found.stored

    async def detach(self, tenant: str, store: str, file_id: str) -> bool:
        """Take a file out of a store; True if it was there."""
        found = self._owner(tenant).stores.get(store)
        if found is None or file_id not in found.files:
            return False
        self._detach(tenant, found, [file_id])
        return True

    async def chunk_texts(
        self, tenant: str, attachment: str, *, after: int, limit: int
    ) -> list[str]:
        """Return the chunks numbered above `after` (-1: from the first), in order."""
        chunks = await self.chunks(tenant, attachment, model="", after=after, limit=limit)
        return [chunk.text for chunk in chunks]

    # -- batches ----------------------------------------------------------------------------------

    async def get_batch(self, tenant: str, store: str, batch: str) -> StoredBatch | None:
        """Return the batch, or None."""
        mine = self._owner(tenant).stores.get(store)
        found = None if mine is None else mine.batches.get(batch)
        if mine is None or found is None:
            return None
        return StoredBatch(
            id=batch,
            store=store,
            created_at=int(found.created_at),
            cancelled=found.cancelled,
            counts=counts_of(each for each in mine.files.values() if each.batch == batch),
        )

    async def cancel_batch(self, tenant: str, store: str, batch: str) -> StoredBatch | None:
        """Cancel those of its files that are in progress; None if there is no such batch."""
        mine = self._owner(tenant).stores.get(store)
        if mine is None or batch not in mine.batches:
            return None
        for each in mine.files.values():
            if each.batch == batch and each.status == "in_progress":
                self._note_removal(tenant, each, each.ingestion)
                each.status, each.ingestion = "cancelled", None
                mine.batches[batch].cancelled = True
        return await self.get_batch(tenant, store, batch)

    # -- searching --------------------------------------------------------------------------------

    async def matching(self, tenant: str, store: str, filters: Filter, *, limit: int) -> list[str]:
        """Return the completed attachments whose attributes match a filter, the oldest first."""
        found = self._live(tenant, store)
        return [
            each.id
            for each in (found.files.values() if found is not None else ())
            if each.status == "completed" and matches(filters, each.attributes)
        ][:limit]

    async def found(
        self, tenant: str, places: Sequence[tuple[str, int]]
    ) -> dict[tuple[str, int], FoundChunk]:
        """Return what of these places (attachment, number) is there, of completed attachments alone."""
        chunks = {place: await self._found(tenant, *place) for place in places}
        return {place: chunk for place, chunk in chunks.items() if chunk is not None}

    # -- files that go ----------------------------------------------------------------------------

    async def delete_file(self, tenant: str, file_id: str) -> bool:
        """Remove the file, drop its blobs and take it out of all vector stores; True if there was one."""
        deleted = await super().delete_file(tenant, file_id)
        if deleted:
            self._detach_everywhere(tenant, [file_id])
        return deleted

    async def remove_expired_files(self, *, limit: int) -> int:
        """Remove files whose time has come, and uploads a day after theirs; returns how many."""
        removed = await super().remove_expired_files(limit=limit)
        for tenant, owner in self._owners.items():
            attached = {each.file_id for each in owner.attachments.values()}
            self._detach_everywhere(tenant, attached - self._files_of(tenant).files.keys())
        return removed

    def forget_vector_stores(self, tenant: str) -> None:
        """Remove all vector stores of a tenant."""
        for store in self._owner(tenant).stores.values():
            self._detach(tenant, store, list(store.files))
        self._owners.pop(tenant, None)

    def _shown(self, store: VectorStore) -> StoredVectorStore:
        return store.stored(expired=self._past(store.expires))

    def _live(self, tenant: str, store: str) -> VectorStore | None:
        """Return a store that has not expired."""
        found = self._owner(tenant).stores.get(store)
        return None if found is None or self._past(found.expires) else found

    def _file_of(self, tenant: str, store: str, file_id: str) -> Attachment | None:
        found = self._owner(tenant).stores.get(store)
        return None if found is None else found.files.get(file_id)

    def _attach(
        self, tenant: str, store: VectorStore, new: NewAttachment, batch: str | None
    ) -> Attachment:
        before = store.files.get(new.file_id)
        if before is not None and before.id == new.id:
            return before
        if before is not None:
            self._detach(tenant, store, [new.file_id])
        now = self._clock()
        self._attached += 1
        attachment = Attachment(
            id=new.id,
            store=store.id,
            file_id=new.file_id,
            created_at=now,
            attributes=new.attributes,
            chunking=new.chunking,
            batch=batch,
            ingestion=Ingestion(now, self._attached),
        )
        store.files[new.file_id] = attachment
        self._owner(tenant).attachments[new.id] = attachment
        return attachment

    def _detach_everywhere(self, tenant: str, file_ids: Iterable[str]) -> None:
        for file_id in file_ids:
            for store in self._owner(tenant).stores.values():
                if file_id in store.files:
                    self._detach(tenant, store, [file_id])

    def _detach(self, tenant: str, store: VectorStore, file_ids: Sequence[str]) -> None:
        for file_id in file_ids:
            attachment = store.files.pop(file_id)
            del self._owner(tenant).attachments[attachment.id]
            self._note_removal(tenant, attachment, attachment.ingestion)

    async def _found(self, tenant: str, attachment: str, number: int) -> FoundChunk | None:
        held = self._owner(tenant).attachments.get(attachment)
        if held is None or held.status != "completed" or self._live(tenant, held.store) is None:
            return None
        file = await self.get_file(tenant, held.file_id)
        chunk = held.chunks.get(number)
        if file is None or chunk is None:
            return None
        return FoundChunk(
            attachment=attachment,
            number=number,
            store=held.store,
            file_id=held.file_id,
            filename=file.filename,
            attributes=held.attributes,
            text=chunk.text,
        )
