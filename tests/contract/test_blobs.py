"""What every blob store does: a directory, and S3 as moto plays it."""

from __future__ import annotations

import asyncio
import hashlib
import os
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest

from engine.errors import StorageUnavailable
from engine.ports import BlobStore
from storage.blobs.store import open_blobs
from storage.memory import MemoryBlobs
from tests.support.object_store import ObjectStore, object_store

KEY = "0123456789abcdef" * 2
MIB = 1 << 20


class _Places:
    """A blob store, and how to look behind it."""

    def __init__(self, blobs: BlobStore, left: Callable[[], list[str]]) -> None:
        self.blobs = blobs
        self.left = left
        """What there is, halves of blobs included."""


@pytest.fixture(scope="module")
def s3() -> Iterator[ObjectStore]:
    """A server that speaks S3."""
    with object_store() as running:
        yield running


@pytest.fixture(params=["directory", "memory", "s3"])
def places(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> _Places:
    if request.param == "directory":

        def files() -> list[str]:
            return [path.name for path in tmp_path.rglob("*") if path.is_file()]

        return _Places(open_blobs(None, tmp_path, environ={}), files)
    if request.param == "memory":
        memory = MemoryBlobs()
        return _Places(memory, lambda: list(memory.kept))
    store: ObjectStore = request.getfixturevalue("s3")
    store.clear()
    for name, value in store.environment().items():
        monkeypatch.setenv(name, value)
    blobs = open_blobs(store.place, Path("unused"), environ=os.environ)
    return _Places(blobs, lambda: store.blobs() + store.halves())


async def _pieces(*pieces: bytes) -> AsyncIterator[bytes]:
    for piece in pieces:
        yield piece


async def _read(blobs: BlobStore, start: int, end: int) -> bytes:
    return b"".join([piece async for piece in blobs.get(KEY, start, end)])


async def test_what_is_put_is_got_whole_and_in_parts(places: _Places) -> None:
    """Over the size of a part, with its size and checksum; any range of it."""
    data = bytes(range(256)) * 4096 * 17
    blob = await places.blobs.put(
        KEY, _pieces(*(data[at : at + MIB] for at in range(0, len(data), MIB)))
    )
    assert (blob.key, blob.size) == (KEY, len(data))
    assert blob.sha256 == hashlib.sha256(data).digest()
    for start, end in ((0, len(data)), (0, 1), (5, 5), (8 * MIB - 3, 8 * MIB + 3)):
        assert await _read(places.blobs, start, end) == data[start:end]


@pytest.mark.parametrize("pieces", [(), (b"",), (b"a", b"", b"b")])
async def test_small_blobs_are_blobs(places: _Places, pieces: tuple[bytes, ...]) -> None:
    """Also those of nothing."""
    blob = await places.blobs.put(KEY, _pieces(*pieces))
    assert blob.size == len(b"".join(pieces))
    assert await _read(places.blobs, 0, blob.size) == b"".join(pieces)


async def test_what_breaks_off_leaves_nothing(places: _Places) -> None:
    """Its own error passes; nothing of what was written stays."""

    async def broken() -> AsyncIterator[bytes]:
        yield b"a" * 9 * MIB
        yield b"a" * 9 * MIB
        raise LookupError("gone")

    with pytest.raises(LookupError):
        await places.blobs.put(KEY, broken())
    assert places.left() == []


async def test_who_is_cancelled_leaves_nothing(places: _Places) -> None:
    """A client that left ends the task that reads it."""
    begun = asyncio.Event()

    async def endless() -> AsyncIterator[bytes]:
        yield b"a" * 9 * MIB
        begun.set()
        await asyncio.Event().wait()

    putting = asyncio.create_task(places.blobs.put(KEY, endless()))
    async with asyncio.timeout(10):
        await begun.wait()
        putting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await putting
    assert places.left() == []


async def test_what_is_deleted_is_gone_and_may_be_deleted_again(places: _Places) -> None:
    """The sweep may die between a blob and its row."""
    await places.blobs.put(KEY, _pieces(b"a"))
    await places.blobs.delete([KEY, KEY[::-1]])
    await places.blobs.delete([KEY])
    assert places.left() == []
    with pytest.raises(StorageUnavailable):
        await _read(places.blobs, 0, 1)


async def test_what_a_killed_writer_left_goes_with_its_blob(tmp_path: Path) -> None:
    """A directory's halves have names of their own."""
    half = tmp_path / KEY[:2] / f"{KEY}#1"
    half.parent.mkdir()
    half.write_bytes(b"half")
    await open_blobs(None, tmp_path, environ={}).delete([KEY])
    assert not half.exists()


async def test_a_store_that_fails_is_told_of(tmp_path: Path) -> None:
    """P2: to who writes, however much is still to come."""
    (tmp_path / KEY[:2]).write_bytes(b"in the way")

    async def long() -> AsyncIterator[bytes]:
        for _ in range(64):
            yield b"a" * MIB

    async with asyncio.timeout(10):
        with pytest.raises(StorageUnavailable):
            await open_blobs(None, tmp_path, environ={}).put(KEY, long())


def test_a_url_that_cannot_be_used_is_refused(tmp_path: Path) -> None:
    """At the start, not at the first file."""
    with pytest.raises(ValueError, match=r"."):
        open_blobs("nonsense://x", tmp_path, environ={})


def test_directories_are_their_owners(tmp_path: Path) -> None:
    """Nobody else of the machine reads them."""
    open_blobs(None, tmp_path / "new" / "files", environ={})
    assert (tmp_path / "new" / "files").stat().st_mode & 0o077 == 0
