"""What the memory store keeps of vector stores."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

from engine.ports import (
    AttachmentStatus,
    Attributes,
    Chunking,
    FileCounts,
    IngestionErrorCode,
    Removal,
    StoredAttachment,
    StoredVectorStore,
)

DAY = 86_400.0


@dataclass
class Chunk:
    """A chunk, with the vector that a model made of it."""

    text: str
    model: str | None = None
    vector: bytes = b""

    @property
    def size(self) -> int:
        """Its bytes, those of its vector too."""
        return len(self.text.encode()) + len(self.vector)


@dataclass
class Ingestion:
    """What is still to be done for an attachment; `owner` is None while it waits. Times are seconds."""

    not_before: float
    number: int
    owner: str | None = None
    expires: float = 0.0
    token: int = 0
    attempts: int = 0


@dataclass
class Attachment:
    """A file of a store; `ingestion` is None once it is not in progress any more.

    `late_until` is when the last lease that was given up would have run out.
    """

    id: str
    store: str
    file_id: str
    created_at: float
    attributes: Attributes
    chunking: Chunking
    batch: str | None
    ingestion: Ingestion | None
    status: AttachmentStatus = "in_progress"
    error: tuple[IngestionErrorCode, str] | None = None
    usage_bytes: int = 0
    finished_by: int | None = None
    chunked: bool = False
    late_until: float = 0.0
    chunks: dict[int, Chunk] = field(default_factory=dict)

    @property
    def stored(self) -> StoredAttachment:
        """The attachment as it is read back."""
        return StoredAttachment(
            id=self.id,
            store=self.store,
            file_id=self.file_id,
            created_at=int(self.created_at),
            status=self.status,
            error=self.error,
            usage_bytes=self.usage_bytes,
            attributes=self.attributes,
            chunking=self.chunking,
        )


@dataclass
class Batch:
    """Files that were attached together."""

    created_at: float
    cancelled: bool = False


@dataclass
class VectorStore:
    """A store with its files by id, in order of creation."""

    id: str
    name: str
    description: str | None
    metadata: bytes
    created_at: float
    last_active_at: float
    expire_days: int | None
    files: dict[str, Attachment] = field(default_factory=dict)
    batches: dict[str, Batch] = field(default_factory=dict)
    emptied: bool = False

    @property
    def expires(self) -> float | None:
        """When its time comes."""
        return None if self.expire_days is None else self.last_active_at + self.expire_days * DAY

    def stored(self, *, expired: bool) -> StoredVectorStore:
        """The store as it is read back."""
        expires = self.expires
        return StoredVectorStore(
            id=self.id,
            created_at=int(self.created_at),
            name=self.name,
            description=self.description,
            metadata=self.metadata,
            expire_days=self.expire_days,
            last_active_at=int(self.last_active_at),
            expires_at=None if expires is None else int(expires),
            expired=expired,
            usage_bytes=sum(each.usage_bytes for each in self.files.values()),
            counts=counts_of(self.files.values()),
        )


@dataclass
class Owner:
    """All of a tenant: stores in order of creation, and their attachments by id."""

    stores: dict[str, VectorStore] = field(default_factory=dict)
    attachments: dict[str, Attachment] = field(default_factory=dict)


@dataclass
class Leftover:
    """What may still be in the index, and from when on nobody can be putting more of it there."""

    removal: Removal
    ready: float


def counts_of(files: Iterable[Attachment]) -> FileCounts:
    """Count by status."""
    counts = Counter[str](each.status for each in files)
    return FileCounts(**counts)
