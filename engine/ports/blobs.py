"""Where the bytes of files are: in a directory or an object store, under keys that we mint."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import Protocol

import msgspec


class Blob(msgspec.Struct, frozen=True):
    """Bytes that are kept whole: their key, size in bytes, and SHA-256."""

    key: str
    size: int
    sha256: bytes


class BlobStore(Protocol):
    """Blobs by key, which is 32 hexadecimal digits and so never a path. Raises `StorageUnavailable`,
    also where the store hangs.
    """

    async def put(self, key: str, pieces: AsyncIterator[bytes]) -> Blob:
        """Write a new blob, in bounded memory; what `pieces` raises passes, and then there is no blob.

        Raises `StorageFull` where there is no room for it.
        """
        ...

    def get(self, key: str, start: int, end: int) -> AsyncIterator[bytes]:
        """Yield the bytes from `start` up to but not including `end`; as long as they are there."""
        ...

    async def delete(self, keys: Sequence[str]) -> None:
        """Remove blobs, and what writers that died have left of them; no-op for those that are gone."""
        ...
