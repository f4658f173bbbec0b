"""`engine.ports.BlobStore` by obstore, which speaks to a directory and to object stores alike.

A blob appears when it is whole: a directory gets it by a rename, an object store by the end of a multipart
upload. What breaks off leaves nothing, but for a killed process, whose half is removed by `delete`.
"""

from __future__ import annotations

import asyncio
import errno
import hashlib
import logging
import re
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import obstore
from obstore.exceptions import BaseError
from obstore.store import LocalStore, ObjectStore, from_url

from engine.errors import StorageFull, StorageUnavailable
from engine.ports import Blob
from engine.ports.meters import NO_METERS, BlobTrouble, Meters
from storage.blobs.options import client_options, retries
from storage.blobs.relay import Relay

_log = logging.getLogger(__name__)

_KEY = re.compile(r"[0-9a-f]{32}")
# One part of a multipart upload; with 10,000 of them, far more than any file may have.
_PART_BYTES = 8 << 20
# Parts that are on their way at a time: each is held in memory.
_AT_ONCE = 2
_PIECE_BYTES = 256 << 10
_ABORT_SECONDS = 5.0
# No room on the device, over a quota, over the size that a file may have: obstore gives them as text.
_FULL = re.compile(rf"\(os error (?:{errno.ENOSPC}|{errno.EDQUOT}|{errno.EFBIG})\)")

# obstore's own patience with one attempt ended it.
_HUNG = "kind: Timeout"


class Blobs:
    """Blobs in an obstore; `directory` is where that keeps them, None if it is not on this machine.

    Each step of an operation (a piece given or got, the end of a blob, a removal) has `patience` seconds: a
    store that hangs is one that is not available.
    """

    def __init__(
        self,
        store: ObjectStore,
        directory: Path | None = None,
        *,
        patience: float,
        meters: Meters = NO_METERS,
    ) -> None:
        self._store = store
        self._directory = directory
        self._patience = patience
        self._meters = meters

    async def put(self, key: str, pieces: AsyncIterator[bytes]) -> Blob:
        """Write a new blob, in bounded memory; what `pieces` raises passes, and then there is no blob."""
        path, digest, size = _path(key), hashlib.sha256(), 0
        relay = Relay()
        writing = asyncio.create_task(self._write(path, relay))
        writing.add_done_callback(lambda task: _ended(task, relay))
        try:
            async for piece in pieces:
                digest.update(piece)
                size += len(piece)
                with self._translated():
                    async with asyncio.timeout(self._patience):
                        await relay.give(piece)
                if writing.done():
                    break
            with self._translated():
                async with asyncio.timeout(self._patience):
                    await relay.end()
                    await asyncio.shield(writing)
        except BaseException:
            await _taken_back(writing, relay)
            raise
        return Blob(key, size, digest.digest())

    async def _write(self, path: str, relay: Relay) -> None:
        await obstore.put_async(
            self._store,
            path,
            relay.pieces(),
            use_multipart=True,
            chunk_size=_PART_BYTES,
            max_concurrency=_AT_ONCE,
        )

    async def get(self, key: str, start: int, end: int) -> AsyncIterator[bytes]:
        """Yield the bytes from `start` up to but not including `end`; raises `StorageUnavailable`."""
        if start >= end:
            return
        with self._translated():
            async with asyncio.timeout(self._patience):
                found = await obstore.get_async(
                    self._store, _path(key), options={"range": (start, end)}
                )
            stream = found.stream(min_chunk_size=_PIECE_BYTES)
        while True:
            # Without the time that who reads takes for a piece.
            with self._translated():
                async with asyncio.timeout(self._patience):
                    piece = await anext(stream, None)
            if piece is None:
                return
            yield bytes(piece)

    async def delete(self, keys: Sequence[str]) -> None:
        """Remove blobs, and what writers that died have left of them; no-op for those that are gone."""
        for key in keys:
            with self._translated():
                async with asyncio.timeout(self._patience):
                    await self._delete(key)

    async def _delete(self, key: str) -> None:
        try:
            await obstore.delete_async(self._store, _path(key))
        except FileNotFoundError:
            pass
        if self._directory is not None:
            await asyncio.to_thread(_remove_halves, self._directory / _path(key))

    @contextmanager
    def _translated(self) -> Iterator[None]:
        """Say in the engine's words what a store cannot do now, and count it."""
        try:
            yield
        except (BaseError, OSError) as error:
            trouble, told = _told(error)
            # Its address, and a key that is ours; what clients sent is not in it.
            _log.warning("the file store failed (%s): %s", trouble, _first_line(error))
            self._meters.blob_error(trouble)
            raise told from error


def open_blobs(
    url: str | None,
    directory: Path,
    *,
    environ: Mapping[str, str],
    patience: float = 60.0,
    meters: Meters = NO_METERS,
) -> Blobs:
    """Return the blobs behind a URL (`s3://bucket/prefix`, `gs://…`, `az://…`), or in a directory.

    Credentials of object stores come from the environment, under the names that their own tools use.
    Raises `ValueError` for a URL that cannot be used.
    """
    if url is None:
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        return Blobs(LocalStore(directory), directory, patience=patience, meters=meters)
    try:
        store = from_url(
            url,
            client_options=client_options(url, environ, patience),
            retry_config=retries(patience),
        )
    except BaseError as error:
        raise ValueError(str(error).splitlines()[0]) from None
    return Blobs(store, patience=patience, meters=meters)


def _path(key: str) -> str:
    assert _KEY.fullmatch(key), "keys are ours"
    return f"{key[:2]}/{key}"


def _remove_halves(path: Path) -> None:
    """Remove what obstore writes before it renames."""
    for half in path.parent.glob(f"{path.name}#*"):
        half.unlink(missing_ok=True)


async def _taken_back(writing: asyncio.Task[None], relay: Relay) -> None:
    """End a writer whose blob is not to be.

    Not cancelled but told, as long as there is hope: only so is an upload to an object store taken back.
    """
    relay.break_off()
    try:
        await asyncio.wait({writing}, timeout=_ABORT_SECONDS)
    finally:
        writing.cancel()


def _ended(writing: asyncio.Task[None], relay: Relay) -> None:
    relay.close()
    if not writing.cancelled():
        writing.exception()  # looked at, for where nobody waits for it any more


def _first_line(error: Exception) -> str:
    """Return the store's own words, without the pages that some of them have behind."""
    return (str(error).splitlines() or [type(error).__name__])[0]


def _told(error: Exception) -> tuple[BlobTrouble, StorageUnavailable]:
    if isinstance(error, FileNotFoundError):
        return "lost", StorageUnavailable("The bytes of the file are not in the file store.")
    if isinstance(error, TimeoutError) or _HUNG in str(error):
        return "timeout", StorageUnavailable("The file store did not answer in time.")
    if _FULL.search(str(error)):
        return "full", StorageFull("The file store has no room for the file.")
    return "unavailable", StorageUnavailable("The file store is not available.")
