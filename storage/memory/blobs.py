"""Blobs in memory."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Sequence

from engine.errors import StorageUnavailable
from engine.ports import Blob


class MemoryBlobs:
    """`engine.ports.BlobStore` in memory."""

    def __init__(self) -> None:
        self.kept: dict[str, bytes] = {}

    async def put(self, key: str, pieces: AsyncIterator[bytes]) -> Blob:
        """Keep a new blob."""
        data = b"".join([piece async for piece in pieces])
        self.kept[key] = data
        return Blob(key, len(data), hashlib.sha256(data).digest())

    async def get(self, key: str, start: int, end: int) -> AsyncIterator[bytes]:
        """Yield the bytes from `start` up to but not including `end`."""
        if key not in self.kept:
            raise StorageUnavailable("The bytes of the file are not in the file store.")
        if start < end:
            yield self.kept[key][start:end]

    async def delete(self, keys: Sequence[str]) -> None:
        """Remove blobs."""
        for key in keys:
            self.kept.pop(key, None)
