"""Vector stores as they are stored: which files are attached, their chunks, and what is still to be done.

A file that is attached to a store is an *attachment* with an id of its own, under which its chunks are kept
here and in the index: whoever detaches a file and attaches it again never meets what was left of the first
time. While it is `in_progress` it has a row in the queue of ingestions, owned by a lease as runs are.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, Protocol

import msgspec

from engine.ports.extraction import Chunking
from engine.ports.records import Order
from engine.ports.search import Attributes, Filter

AttachmentStatus = Literal["in_progress", "completed", "cancelled", "failed"]
IngestionErrorCode = Literal["server_error", "unsupported_file", "invalid_file"]


class FileCounts(msgspec.Struct, frozen=True, kw_only=True):
    """How many files of a store or of a batch there are, by status."""

    in_progress: int = 0
    completed: int = 0
    cancelled: int = 0
    failed: int = 0


class NewVectorStore(msgspec.Struct, frozen=True, kw_only=True):
    """A store to be. `metadata` is JSON; `expire_days` None: it does not expire."""

    id: str
    name: str
    description: str | None = None
    metadata: bytes
    expire_days: int | None = None


class StoredVectorStore(msgspec.Struct, frozen=True, kw_only=True):
    """A store; times are Unix seconds. `expires_at` counts from `last_active_at`.

    What has expired keeps its row, without files, until it is deleted.
    """

    id: str
    created_at: int
    name: str
    description: str | None
    metadata: bytes
    expire_days: int | None
    last_active_at: int
    expires_at: int | None
    expired: bool
    usage_bytes: int
    counts: FileCounts


class VectorStorePage(msgspec.Struct, frozen=True):
    """A page of stores."""

    stores: list[StoredVectorStore]
    has_more: bool


class StoreChange(msgspec.Struct, frozen=True, kw_only=True):
    """What an update sets; UNSET leaves it."""

    name: str | msgspec.UnsetType = msgspec.UNSET
    metadata: bytes | msgspec.UnsetType = msgspec.UNSET
    expire_days: int | msgspec.UnsetType | None = msgspec.UNSET


class NewAttachment(msgspec.Struct, frozen=True, kw_only=True):
    """A file to be attached, under the id `id`."""

    id: str
    file_id: str
    attributes: Attributes = {}
    chunking: Chunking = Chunking()


class StoredAttachment(msgspec.Struct, frozen=True, kw_only=True):
    """A file of a store; `usage_bytes` counts its chunks and their vectors."""

    id: str
    store: str
    file_id: str
    created_at: int
    status: AttachmentStatus
    error: tuple[IngestionErrorCode, str] | None
    usage_bytes: int
    attributes: Attributes
    chunking: Chunking


class AttachmentPage(msgspec.Struct, frozen=True):
    """A page of the files of a store."""

    attachments: list[StoredAttachment]
    has_more: bool


class Attached(msgspec.Struct, frozen=True):
    """What became of attaching: all of it or, where files are `unknown`, nothing.

    `store` and `batch` are what they were then; the latter is there where there is one.
    """

    attachments: list[StoredAttachment]
    unknown: list[str] = []
    store: StoredVectorStore | None = None
    batch: StoredBatch | None = None


class StoredBatch(msgspec.Struct, frozen=True, kw_only=True):
    """A batch of files that were attached together."""

    id: str
    store: str
    created_at: int
    cancelled: bool
    counts: FileCounts


class FoundChunk(msgspec.Struct, frozen=True, kw_only=True):
    """A chunk of a file that is there and complete."""

    attachment: str
    number: int
    store: str
    file_id: str
    filename: str
    attributes: Attributes
    text: str


class IngestionLease(msgspec.Struct, frozen=True):
    """The right to ingest an attachment; `token` fences off an owner whose lease was taken over."""

    tenant: str
    attachment: str
    token: int


class IngestionClaim(msgspec.Struct, frozen=True, kw_only=True):
    """An attachment handed to a worker.

    `attempts` counts this one; `chunked` says that all of its chunks are stored.
    """

    lease: IngestionLease
    store: str
    file_id: str
    chunking: Chunking
    attempts: int
    chunked: bool


class StoredChunk(msgspec.Struct, frozen=True, kw_only=True):
    """A chunk as it is kept; `vector` is None while it has none of the model that was asked for."""

    number: int
    text: str
    vector: bytes | None


class ChunkCount(msgspec.Struct, frozen=True):
    """How many chunks an attachment has, and of how many there are vectors by the model asked for."""

    chunks: int
    embedded: int


class Removal(msgspec.Struct, frozen=True):
    """An attachment that is gone, and whose chunks may still be in the index."""

    tenant: str
    store: str
    attachment: str


class VectorStoreStore(Protocol):
    """Vector stores by tenant; another tenant's are not there (rule X1).

    Every method raises `StorageUnavailable`, and can be repeated. Cursors that name nothing raise
    `InvalidRequest` with their `param`.
    """

    # -- stores -----------------------------------------------------------------------------------

    async def add_vector_store(self, tenant: str, new: NewVectorStore) -> StoredVectorStore:
        """Write a store."""
        ...

    async def get_vector_store(self, tenant: str, store: str) -> StoredVectorStore | None:
        """Return the store, or None."""
        ...

    async def list_vector_stores(
        self, tenant: str, *, limit: int, after: str | None, before: str | None, order: Order
    ) -> VectorStorePage:
        """Return a page by creation: what is nearest to `after` or, where there is only `before`, to that."""
        ...

    async def update_vector_store(
        self, tenant: str, store: str, change: StoreChange
    ) -> StoredVectorStore | None:
        """Change it; None if there is no such store. The time of what has expired stays."""
        ...

    async def delete_vector_store(self, tenant: str, store: str) -> bool:
        """Remove a store with its attachments, batches and chunks; True if there was one.

        Of a large one the rest goes with `expire_vector_stores`, unseen.
        """
        ...

    async def touch_vector_stores(self, tenant: str, stores: Sequence[str]) -> None:
        """Note that they were used: what is written within a minute of the last time may be left out."""
        ...

    async def expire_vector_stores(self, *, limit: int) -> int:
        """Detach all files of stores whose time has come; return of how many stores."""
        ...

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

        All of it or nothing; the store was used then. None without such a store, or if it has expired. A file
        that is attached already is detached first, unless that was under the same id: then this is a
        repetition. Of several for one file the last counts.
        """
        ...

    async def get_attachment(
        self, tenant: str, store: str, file_id: str
    ) -> StoredAttachment | None:
        """Return the file of a store, or None."""
        ...

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
        """Return a page by creation; cursors are ids of files.

        What is nearest to `after` or, where there is only `before`, to that. With `batch`, cursors are
        of its files; a cursor stays good when its file takes another `status`.
        """
        ...

    async def label(
        self, tenant: str, store: str, file_id: str, attributes: Attributes
    ) -> StoredAttachment | None:
        """Replace the attributes of a file; None if it is not attached."""
        ...

    async def detach(self, tenant: str, store: str, file_id: str) -> bool:
        """Take a file out of a store; True if it was there. A file that is deleted is detached with that."""
        ...

    async def chunk_texts(
        self, tenant: str, attachment: str, *, after: int, limit: int
    ) -> list[str]:
        """Return the chunks numbered above `after` (-1: from the first), in order.

        None of what is gone, failed or cancelled, here and wherever chunks are read.
        """
        ...

    # -- batches ----------------------------------------------------------------------------------

    async def get_batch(self, tenant: str, store: str, batch: str) -> StoredBatch | None:
        """Return the batch, or None."""
        ...

    async def cancel_batch(self, tenant: str, store: str, batch: str) -> StoredBatch | None:
        """Cancel those of its files that are in progress; None if there is no such batch.

        Where there are none it is not `cancelled`.
        """
        ...

    # -- searching --------------------------------------------------------------------------------

    async def matching(self, tenant: str, store: str, filters: Filter, *, limit: int) -> list[str]:
        """Return the completed attachments whose attributes match a filter, the oldest first.

        None of a store that has expired.
        """
        ...

    async def found(
        self, tenant: str, places: Sequence[tuple[str, int]]
    ) -> dict[tuple[str, int], FoundChunk]:
        """Return what of these places (attachment, number) is there.

        Of completed attachments alone, of files that are there, in stores that have not expired.
        """
        ...

    # -- ingestion --------------------------------------------------------------------------------

    async def claim_ingestions(
        self, worker: str, lease_seconds: float, *, limit: int
    ) -> list[IngestionClaim]:
        """Take what waits and what was left by its owner, of the tenant that has the fewest at work first."""
        ...

    async def renew_ingestions(
        self, leases: Sequence[IngestionLease], lease_seconds: float
    ) -> list[IngestionLease]:
        """Prolong leases; return those that are lost: taken over, cancelled, detached."""
        ...

    async def store_chunks(
        self, lease: IngestionLease, first: int, chunks: Sequence[str], *, last: bool
    ) -> None:
        """Write chunks from the number `first` on, in place of all from there; raises `LeaseLost`.

        `last`: these were the last, and the attachment is `chunked` from now on.
        """
        ...

    async def chunks(
        self, tenant: str, attachment: str, *, model: str, after: int, limit: int
    ) -> list[StoredChunk]:
        """Return chunks numbered above `after` with their vectors by `model`."""
        ...

    async def chunk_count(self, tenant: str, attachment: str, *, model: str) -> ChunkCount:
        """Return how many chunks there are."""
        ...

    async def store_vectors(
        self, tenant: str, attachment: str, *, model: str, vectors: Sequence[tuple[int, bytes]]
    ) -> None:
        """Keep the vectors of chunks, by number, in place of what they had; of chunks that are gone none."""
        ...

    async def finish_ingestion(
        self, lease: IngestionLease, error: tuple[IngestionErrorCode, str] | None
    ) -> None:
        """End it as completed, or as failed with what is wrong; raises `LeaseLost`.

        What failed has no chunks, and what of it is in the index is to be removed: when the lease would have
        run out, because what its owner gave up waiting for may be inserted until then.
        """
        ...

    async def put_back_ingestion(
        self, lease: IngestionLease, *, seconds: float, counts: bool = False
    ) -> None:
        """Put it back into the queue, to be taken after so many seconds; no-op if the lease is lost.

        The attempt that ends with it is one of its `attempts` only where it `counts`.
        """
        ...

    # -- the index --------------------------------------------------------------------------------

    async def removals(self, *, limit: int) -> list[Removal]:
        """Return attachments of all tenants that are gone, or that did not become complete.

        What a worker had a lease of is returned when that has run out, or would have, whatever happened to
        it since: also where it was put back, what was sent to the index may still be on its way.
        """
        ...

    async def forget_removals(self, tenant: str, attachments: Sequence[str]) -> None:
        """Forget those that were removed from the index."""
        ...

    async def drop_chunks(self) -> bool:
        """Remove some chunks of attachments that are gone, failed or cancelled, of all tenants.

        In a short transaction. False where there is nothing to do, or others are doing it.
        """
        ...

    async def completed_attachments(
        self, *, after: tuple[str, str] | None, limit: int
    ) -> list[Removal]:
        """Return completed attachments of all tenants by tenant and attachment, those behind `after`."""
        ...
