"""Files, uploads and blobs' rows in memory."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import msgspec

from engine.ports import (
    Blob,
    Dropped,
    FilePage,
    NewFile,
    NewUpload,
    Order,
    StoredFile,
    StoredUpload,
)
from storage.limits import check_file
from storage.memory.pages import ordered, past

_MARGIN = 300.0
_HOUR, _DAY = 3600.0, 86_400.0


@dataclass
class _Row:
    blob: Blob
    drop_at: float | None
    holder: str = ""
    number: int = 0


@dataclass
class _Timed:
    """An object with its time, which is finer than what is shown of it."""

    shown: StoredFile
    expires: float | None


@dataclass
class _Upload:
    shown: StoredUpload
    expires: float


@dataclass
class _Tenant:
    files: dict[str, _Timed] = field(default_factory=dict)
    uploads: dict[str, _Upload] = field(default_factory=dict)
    blobs: dict[str, _Row] = field(default_factory=dict)

    def held(self, holder: str) -> list[_Row]:
        rows = [row for row in self.blobs.values() if row.holder == holder]
        return sorted(rows, key=lambda row: row.number)


class MemoryFiles:
    """`engine.ports.FileStore` in memory; `clock` tells Unix seconds."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._of_files: dict[str, _Tenant] = {}

    async def reserve_blob(self, tenant: str, key: str, seconds: int) -> None:
        """Announce a blob; it is dropped unless a file or an upload takes it within so many seconds."""
        rows = self._files_of(tenant).blobs
        rows.setdefault(key, _Row(Blob(key, 0, b""), self._clock() + seconds))

    async def drop_blob(self, tenant: str, key: str) -> None:
        """Drop an announced blob, unless a file or an upload has taken it."""
        row = self._files_of(tenant).blobs.get(key)
        if row is not None and not row.holder:
            self._drop([row])

    async def add_file(self, tenant: str, new: NewFile, blob: Blob) -> StoredFile | None:
        """Write a file whose bytes are an announced blob; None if that was dropped."""
        check_file(tenant, new.purpose, new.filename)
        row = self._announced(tenant, blob.key, "")
        if row is not None:
            row.blob, row.holder = blob, new.id
            row.drop_at = self._write_file(tenant, new, blob.size)
        return await self.get_file(tenant, new.id)

    async def get_file(self, tenant: str, file_id: str) -> StoredFile | None:
        """Return the file, or None."""
        file = self._files_of(tenant).files.get(file_id)
        return None if file is None or self._past(file.expires) else file.shown

    async def file_blobs(self, tenant: str, file_id: str) -> list[Blob]:
        """Return the blobs of a file in order; none if there is no such file."""
        return [row.blob for row in self._files_of(tenant).held(file_id)]

    async def list_files(
        self, tenant: str, *, limit: int, after: str | None, order: Order, purpose: str | None
    ) -> FilePage:
        """Return a page by creation; raises `InvalidRequest` (param `after`) for an unknown cursor."""
        found = ordered(list(self._files_of(tenant).files.values()), order)
        found = past(found, [file.shown.id for file in found], after)
        files = [
            file.shown
            for file in found
            if not self._past(file.expires) and purpose in (None, file.shown.purpose)
        ]
        return FilePage(files[:limit], has_more=len(files) > limit)

    async def delete_file(self, tenant: str, file_id: str) -> bool:
        """Remove the file and drop its blobs; True if there was one."""
        if await self.get_file(tenant, file_id) is None:
            return False
        del self._files_of(tenant).files[file_id]
        self._drop(self._files_of(tenant).held(file_id))
        return True

    async def add_upload(self, tenant: str, new: NewUpload) -> StoredUpload:
        """Write a pending upload."""
        check_file(tenant, new.purpose, new.filename, new.media_type)
        now = self._clock()
        shown = StoredUpload(
            id=new.id,
            created_at=int(now),
            expires_at=int(now + new.open_seconds),
            status="pending",
            size=new.size,
            purpose=new.purpose,
            filename=new.filename,
            media_type=new.media_type,
            keep_seconds=new.keep_seconds,
            file_id=None,
        )
        upload = _Upload(shown, now + new.open_seconds)
        return self._files_of(tenant).uploads.setdefault(new.id, upload).shown

    async def get_upload(self, tenant: str, upload_id: str) -> StoredUpload | None:
        """Return the upload, or None."""
        upload = self._files_of(tenant).uploads.get(upload_id)
        if upload is None:
            return None
        if upload.shown.status == "pending" and self._past(upload.expires):
            return msgspec.structs.replace(upload.shown, status="expired")
        return upload.shown

    async def add_part(self, tenant: str, upload_id: str, blob: Blob) -> bool:
        """Give an announced blob to a pending upload; False if either is not there any more."""
        upload = self._pending(tenant, upload_id)
        row = self._announced(tenant, blob.key, "", upload_id)
        if upload is None or row is None:
            return False
        row.blob, row.holder, row.drop_at = blob, upload_id, upload.expires + _HOUR
        return True

    async def upload_parts(self, tenant: str, upload_id: str) -> list[Blob]:
        """Return the parts of an upload, in no order."""
        return await self.file_blobs(tenant, upload_id)

    async def complete_upload(
        self, tenant: str, upload_id: str, file_id: str, keys: Sequence[str]
    ) -> bool:
        """Make a file of parts of a pending upload, in the order of `keys`; False if it is not pending."""
        upload = self._pending(tenant, upload_id)
        if upload is None:
            again = self._files_of(tenant).uploads.get(upload_id)
            return again is not None and again.shown.file_id == file_id
        was = upload.shown
        upload.shown = msgspec.structs.replace(was, status="completed", file_id=file_id)
        new = NewFile(
            id=file_id, purpose=was.purpose, filename=was.filename, keep_seconds=was.keep_seconds
        )
        expires = self._write_file(tenant, new, was.size)
        held = self._files_of(tenant).held(upload_id)
        self._drop([row for row in held if row.blob.key not in keys])
        for row in held:
            if row.blob.key in keys:
                row.holder, row.number = file_id, keys.index(row.blob.key)
                row.drop_at = expires
        return True

    async def cancel_upload(self, tenant: str, upload_id: str) -> bool:
        """Cancel a pending upload and drop its parts; False if it is not pending."""
        upload = self._pending(tenant, upload_id)
        if upload is None:
            return False
        upload.shown = msgspec.structs.replace(upload.shown, status="cancelled")
        self._drop(self._files_of(tenant).held(upload_id))
        return True

    async def dropped_blobs(self, *, limit: int, tenant: str | None = None) -> list[Dropped]:
        """Return blobs that nothing needs, of one tenant or of all."""
        found = [
            Dropped(owner, key)
            for owner, each in self._of_files.items()
            for key, row in each.blobs.items()
            if tenant in (None, owner) and self._past(row.drop_at)
        ]
        return found[:limit]

    async def forget_blobs(self, tenant: str, keys: Sequence[str]) -> None:
        """Forget dropped blobs that were removed."""
        rows = self._files_of(tenant).blobs
        for key in keys:
            if key in rows and self._past(rows[key].drop_at):
                del rows[key]

    async def remove_expired_files(self, *, limit: int) -> int:
        """Remove files whose time has come, and uploads a day after theirs; returns how many."""
        count = 0
        for each in self._of_files.values():
            files = [name for name, file in each.files.items() if self._past(file.expires)]
            old = [name for name, up in each.uploads.items() if self._past(up.expires + _DAY)]
            for name in files[: limit - count]:
                del each.files[name]
            count += len(files[: limit - count])
            for name in old[: limit - count]:
                del each.uploads[name]
            count += len(old[: limit - count])
        return count

    def forget_files(self, tenant: str) -> None:
        """Remove all files and uploads of a tenant, and drop all of its blobs."""
        mine = self._files_of(tenant)
        mine.files.clear()
        mine.uploads.clear()
        self._drop(list(mine.blobs.values()))

    def _files_of(self, tenant: str) -> _Tenant:
        return self._of_files.setdefault(tenant, _Tenant())

    def _past(self, moment: float | None) -> bool:
        return moment is not None and moment <= self._clock()

    def _drop(self, rows: Sequence[_Row]) -> None:
        for row in rows:
            row.drop_at = self._clock()

    def _announced(self, tenant: str, key: str, *holders: str) -> _Row | None:
        row = self._files_of(tenant).blobs.get(key)
        if row is None or row.holder not in holders or row.drop_at is None:
            return None
        return row if row.drop_at > self._clock() + _MARGIN else None

    def _pending(self, tenant: str, upload_id: str) -> _Upload | None:
        upload = self._files_of(tenant).uploads.get(upload_id)
        if upload is None or upload.shown.status != "pending" or self._past(upload.expires):
            return None
        return upload

    def _write_file(self, tenant: str, new: NewFile, size: int) -> float | None:
        """Write a file's row; returns when its time comes."""
        now = self._clock()
        expires = None if new.keep_seconds is None else now + new.keep_seconds
        shown = StoredFile(
            id=new.id,
            created_at=int(now),
            expires_at=None if expires is None else int(expires),
            purpose=new.purpose,
            filename=new.filename,
            size=size,
        )
        self._files_of(tenant).files[new.id] = _Timed(shown, expires)
        return expires
