"""Files and uploads as they are stored: rows, and which blobs their bytes are.

A blob has a row before its first byte is written, so none is ever lost sight of: a row that nothing has taken
in time is dropped, and the sweep removes blob and row.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, Protocol

import msgspec

from engine.ports.blobs import Blob
from engine.ports.records import Order

UploadStatus = Literal["pending", "completed", "cancelled", "expired"]


class NewFile(msgspec.Struct, frozen=True, kw_only=True):
    """A file to be; `keep_seconds` None keeps it until it is deleted."""

    id: str
    purpose: str
    filename: str
    keep_seconds: int | None = None


class StoredFile(msgspec.Struct, frozen=True, kw_only=True):
    """A file; times are Unix seconds, `size` is in bytes."""

    id: str
    created_at: int
    expires_at: int | None
    purpose: str
    filename: str
    size: int


class FilePage(msgspec.Struct, frozen=True):
    """A page of files."""

    files: list[StoredFile]
    has_more: bool


class NewUpload(msgspec.Struct, frozen=True, kw_only=True):
    """An upload to be: parts of together `size` bytes that become a file."""

    id: str
    size: int
    purpose: str
    filename: str
    media_type: str
    open_seconds: int
    keep_seconds: int | None = None


class StoredUpload(msgspec.Struct, frozen=True, kw_only=True):
    """An upload; `file_id` is that of the file that it became."""

    id: str
    created_at: int
    expires_at: int
    status: UploadStatus
    size: int
    purpose: str
    filename: str
    media_type: str
    keep_seconds: int | None
    file_id: str | None


class Dropped(msgspec.Struct, frozen=True):
    """A blob that nothing needs any more."""

    tenant: str
    key: str


class FileStore(Protocol):
    """Files and uploads by tenant; another tenant's are not there (rule X1), nor are expired files.

    Every method raises `StorageUnavailable`, and can be repeated.
    """

    async def reserve_blob(self, tenant: str, key: str, seconds: int) -> None:
        """Announce a blob; it is dropped unless a file or an upload takes it within so many seconds."""
        ...

    async def drop_blob(self, tenant: str, key: str) -> None:
        """Drop an announced blob, unless a file or an upload has taken it."""
        ...

    async def add_file(self, tenant: str, new: NewFile, blob: Blob) -> StoredFile | None:
        """Write a file whose bytes are an announced blob; None if that was dropped."""
        ...

    async def get_file(self, tenant: str, file_id: str) -> StoredFile | None:
        """Return the file, or None."""
        ...

    async def file_blobs(self, tenant: str, file_id: str) -> list[Blob]:
        """Return the blobs of a file in order; none if there is no such file."""
        ...

    async def list_files(
        self, tenant: str, *, limit: int, after: str | None, order: Order, purpose: str | None
    ) -> FilePage:
        """Return a page by creation; raises `InvalidRequest` (param `after`) for an unknown cursor."""
        ...

    async def delete_file(self, tenant: str, file_id: str) -> bool:
        """Remove the file and drop its blobs; True if there was one."""
        ...

    async def add_upload(self, tenant: str, new: NewUpload) -> StoredUpload:
        """Write a pending upload."""
        ...

    async def get_upload(self, tenant: str, upload_id: str) -> StoredUpload | None:
        """Return the upload, or None."""
        ...

    async def add_part(self, tenant: str, upload_id: str, blob: Blob) -> bool:
        """Give an announced blob to a pending upload; False if either is not there any more."""
        ...

    async def upload_parts(self, tenant: str, upload_id: str) -> list[Blob]:
        """Return the parts of an upload, in no order."""
        ...

    async def complete_upload(
        self, tenant: str, upload_id: str, file_id: str, keys: Sequence[str]
    ) -> bool:
        """Make a file of parts of a pending upload, in the order of `keys`; False if it is not pending.

        Its other parts are dropped.
        """
        ...

    async def cancel_upload(self, tenant: str, upload_id: str) -> bool:
        """Cancel a pending upload and drop its parts; False if it is not pending."""
        ...

    async def dropped_blobs(self, *, limit: int, tenant: str | None = None) -> list[Dropped]:
        """Return blobs that nothing needs, of one tenant or of all."""
        ...

    async def forget_blobs(self, tenant: str, keys: Sequence[str]) -> None:
        """Forget dropped blobs that were removed."""
        ...

    async def remove_expired_files(self, *, limit: int) -> int:
        """Remove files whose time has come, and uploads a day after theirs; returns how many."""
        ...
