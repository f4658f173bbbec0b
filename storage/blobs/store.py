"""`engine.ports.BlobStore` by obstore, which speaks to a directory and to object stores alike.

A blob appears when it is whole: a directory gets it by a rename, an object store by the end of a multipart
upload. What breaks off leaves nothing, but for a killed process, whose half is removed by `delete`.
"""

from __future__ import annotations

import asyncio
import hashlib
import re
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import obstore
from obstore.exceptions import BaseError
from obstore.store import LocalStore, ObjectStore, from_url

from engine.errors import StorageUnavailable
from engine.ports import Blob
from storage.blobs.relay import Relay

_KEY = re.compile(r"[0-9a-f]{32}")
# One part of a multipart upload; with 10,000 of them, far more than any file may have.
_PART_BYTES = 8 << 20
# Parts that are on their way at a time: each is held in memory.
_AT_ONCE = 2
_PIECE_BYTES = 256 << 10
_ABORT_SECONDS = 5.0


class Blobs:
    """Blobs in an obstore; `directory` is where that keeps them, None if it is not on this machine."""

    def __init__(self, store: ObjectStore, directory: Path | None = None) -> None:
        self._store = store
        self._directory = directory

    async def put(self, key: str, pieces: AsyncIterator[bytes]) -> Blob:
        """Write a new blob, in bounded memory; what `pieces` raises passes, and then there is no blob."""
        path, digest, size = _path(key), hashlib.sha256(), 0
        relay = Relay()
        writing = asyncio.ensure_future(self._write(path, relay))
        writing.add_done_callback(lambda _: relay.close())
        try:
            async for piece in pieces:
                digest.update(piece)
                size += len(piece)
                await relay.give(piece)
                if writing.done():
                    break
            await relay.end()
        except BaseException:
            # Not cancelled but told: only so is an upload to an object store taken back.
            await relay.break_off()
            await asyncio.wait({writing}, timeout=_ABORT_SECONDS)
            raise
        await writing
        return Blob(key, size, digest.digest())

    async def _write(self, path: str, relay: Relay) -> None:
        with _translated():
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
        with _translated():
            found = await obstore.get_async(
                self._store, _path(key), options={"range": (start, end)}
            )
            async for piece in found.stream(min_chunk_size=_PIECE_BYTES):
                yield bytes(piece)

    async def delete(self, keys: Sequence[str]) -> None:
        """Remove blobs, and what writers that died have left of them; no-op for those that are gone."""
        for key in keys:
            with _translated():
                try:
                    await obstore.delete_async(self._store, _path(key))
                except FileNotFoundError:
                    pass
            if self._directory is not None:
                _remove_halves(self._directory / _path(key))


def open_blobs(url: str | None, directory: Path) -> Blobs:
    """Return the blobs behind a URL (`s3://bucket/prefix`, `gs://…`, `az://…`), or in a directory.

    Credentials of object stores come from the environment, under the names that their own tools use.
    Raises `ValueError` for a URL that cannot be used.
    """
    if url is None:
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        return Blobs(LocalStore(directory), directory)
    try:
        return Blobs(from_url(url))
    except BaseError as error:
        raise ValueError(str(error).splitlines()[0]) from None


def _path(key: str) -> str:
    assert _KEY.fullmatch(key), "keys are ours"
    return f"{key[:2]}/{key}"


def _remove_halves(path: Path) -> None:
    """Remove what obstore writes before it renames."""
    for half in path.parent.glob(f"{path.name}#*"):
        half.unlink(missing_ok=True)


@contextmanager
def _translated() -> Iterator[None]:
    """Say in the engine's words what a store cannot do now."""
    try:
        yield
    except FileNotFoundError as error:
        raise StorageUnavailable("The bytes of the file are not in the file store.") from error
    except (BaseError, OSError) as error:
        raise StorageUnavailable("The file store is not available.") from error
