"""How bytes become blobs and blobs bytes: announced first, counted, checked on the way out (rule X5)."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager

from engine.errors import StorageUnavailable, TooLarge
from engine.ids import RANDOM_BYTES
from engine.ports import Blob, BlobStore, FileStore
from engine.ports.meters import NO_METERS, Meters
from engine.undisturbed import undisturbed

_log = logging.getLogger(__name__)

# How long a client may take to send one file.
_ANNOUNCED_SECONDS = 6 * 3600


class Keeping:
    """Blobs with their rows."""

    def __init__(
        self,
        store: FileStore,
        blobs: BlobStore,
        randomness: Callable[[int], bytes],
        meters: Meters = NO_METERS,
    ) -> None:
        self._store = store
        self._blobs = blobs
        self._randomness = randomness
        self._meters = meters

    async def keep(
        self, tenant: str, pieces: AsyncIterator[bytes], *, most: int, what: str
    ) -> Blob:
        """Write a blob that a file or an upload is to take; raises TooLarge beyond `most` bytes.

        `what` it is, for that error. Until it is taken nobody sees it, and in the end it is swept.
        """
        key = self._randomness(RANDOM_BYTES).hex()
        await self._store.reserve_blob(tenant, key, _ANNOUNCED_SECONDS)
        blob = await self._blobs.put(key, _bounded(pieces, most, what))
        self._meters.file_bytes("up", blob.size)
        return blob

    @asynccontextmanager
    async def untaken(self, tenant: str) -> AsyncIterator[list[Blob]]:
        """Yield a list for blobs that were kept: unless all goes well, the sweep has them from now on."""
        kept: list[Blob] = []
        try:
            yield kept
        except BaseException:
            await undisturbed(self._let_go(tenant, kept))
            raise

    async def _let_go(self, tenant: str, kept: Sequence[Blob]) -> None:
        try:
            for blob in kept:
                await self._store.drop_blob(tenant, blob.key)
        except StorageUnavailable as error:
            # It is dropped when the time is over for which it was announced.
            _log.warning("a blob that nothing takes stays for a while: %s", error)

    def given(self, size: int) -> None:
        """Count what a client has fetched."""
        self._meters.file_bytes("down", size)

    async def drop(self, blob: Blob) -> None:
        """Remove a blob that nothing could take: its row has gone, or will."""
        await self._blobs.delete([blob.key])

    async def read(self, blobs: Sequence[Blob], start: int, end: int) -> AsyncIterator[bytes]:
        """Yield the bytes from `start` up to `end` of blobs that follow each other.

        Raises StorageUnavailable where they are not there, or not what they were: a blob that is read whole
        is checked before its last piece is given away.
        """
        offset = 0
        for blob in blobs:
            first, behind = max(start - offset, 0), min(end - offset, blob.size)
            if first < behind:
                pieces = self._blobs.get(blob.key, first, behind)
                whole = (first, behind) == (0, blob.size)
                async for piece in _checked(pieces, blob, self._meters) if whole else pieces:
                    yield piece
            offset += blob.size


async def _bounded(pieces: AsyncIterator[bytes], most: int, what: str) -> AsyncIterator[bytes]:
    size = 0
    async for piece in pieces:
        size += len(piece)
        if size > most:
            raise TooLarge(f"{what} is larger than {most} bytes.")
        yield piece


async def _checked(
    pieces: AsyncIterator[bytes], blob: Blob, meters: Meters
) -> AsyncIterator[bytes]:
    digest, held = hashlib.sha256(), b""
    async for piece in pieces:
        if held:
            yield held
        digest.update(piece)
        held = piece
    if digest.digest() != blob.sha256:
        meters.blob_error("lost")
        raise StorageUnavailable("The bytes of the file are not those that were stored.")
    yield held
