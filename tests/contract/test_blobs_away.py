"""A file store that hangs or has no room: told in time, and found again when it is well (rule P2)."""

from __future__ import annotations

import asyncio
import hashlib
import os
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from pathlib import Path

import pytest

from engine.errors import StorageFull, StorageUnavailable
from engine.ports.meters import BlobTrouble, Meters
from storage.blobs.store import Blobs, open_blobs
from tests.support.object_store import ObjectStore, object_store
from tests.support.scarce_disk import scarce_disk
from tests.support.stack import eventually
from tests.support.stalling_proxy import StallingProxy, stalling_proxy

MIB = 1 << 20
# Long enough that a store which is well answers within half of it, on a machine that is busy.
PATIENCE = 4.0
# Beside it: what has begun is taken back, and the machine is busy.
SLACK = 15.0
SIZE = 20 * MIB


class _Counting(Meters):
    def __init__(self) -> None:
        self.troubles: Counter[str] = Counter()

    def blob_error(self, trouble: BlobTrouble) -> None:
        self.troubles[trouble] += 1


@pytest.fixture(scope="module")
def s3() -> Iterator[ObjectStore]:
    """A server that speaks S3."""
    with object_store() as running:
        yield running


def _opened(
    s3: ObjectStore, proxy: StallingProxy, meters: Meters, patience: float = PATIENCE
) -> Blobs:
    with pytest.MonkeyPatch.context() as patch:
        for name, value in s3.environment(proxy.url).items():
            patch.setenv(name, value)
        return open_blobs(s3.place, Path("x"), environ=os.environ, patience=patience, meters=meters)


def _new_key() -> str:
    return os.urandom(16).hex()


async def _pieces(size: int) -> AsyncIterator[bytes]:
    for _ in range(size // MIB):
        yield b"a" * MIB


async def _read(blobs: Blobs, key: str) -> int:
    return sum([len(piece) async for piece in blobs.get(key, 0, MIB)])


async def _fails_in_time(blobs: Blobs, kind: str, key: str) -> None:
    """An operation fails as unavailable, soon behind its patience."""
    work: Mapping[str, Callable[[], Awaitable[object]]] = {
        "get": lambda: _read(blobs, key),
        "delete": lambda: blobs.delete([key]),
        "small": lambda: blobs.put(_new_key(), _pieces(MIB)),
        "large": lambda: blobs.put(_new_key(), _pieces(SIZE)),
    }
    begun = time.monotonic()
    with pytest.raises(StorageUnavailable, match="did not answer in time"):
        await work[kind]()
    assert time.monotonic() - begun < PATIENCE + SLACK


# What hangs, by the first line of the request, how much of its answer comes, and which operation meets it.
HANGS: Sequence[tuple[bytes, int, str]] = [
    (b"^GET ", 0, "get"),
    (b"^GET ", MIB // 2, "get"),
    (b"^POST .*uploads", 0, "small"),
    (b"^PUT .*partNumber", 0, "large"),
    (b"^PUT .*partNumber", 20, "small"),
    (b"^POST .*uploadId", 0, "small"),
    (b"^POST .*uploadId", 20, "small"),
    (b"^POST .*delete", 0, "delete"),
    (b"", 0, "large"),
]


async def test_an_object_store_that_hangs_is_told_in_time(s3: ObjectStore) -> None:
    """P2: wherever it hangs; nothing of it is a blob, no call is left hanging, and it is found again."""

    async def one(requests: bytes, answered: int, kind: str) -> None:
        meters = _Counting()
        async with stalling_proxy(s3.url) as proxy:
            blobs = _opened(s3, proxy, meters)
            key = _new_key()
            await blobs.put(key, _pieces(MIB))
            idle = proxy.open
            proxy.stall(requests, answered)
            await _fails_in_time(blobs, kind, key)
            assert proxy.stalled > 0
            assert meters.troubles == {"timeout": 1}
            await eventually(lambda: proxy.open <= idle, 2 * PATIENCE + SLACK)
            proxy.flow()
            if kind != "delete":
                assert await _read(blobs, key) == MIB
            assert (await blobs.put(_new_key(), _pieces(MIB))).size == MIB

    async with asyncio.TaskGroup() as group:
        for hang in HANGS:
            group.create_task(one(*hang))


async def test_a_client_that_leaves_a_store_that_hangs_is_let_go(s3: ObjectStore) -> None:
    """E6: what it held in memory and in connections goes with it, although the store takes nothing."""
    async with stalling_proxy(s3.url) as proxy:
        blobs = _opened(s3, proxy, Meters(), patience=2.0)
        proxy.stall()
        putting = asyncio.create_task(blobs.put(_new_key(), _pieces(SIZE)))
        await eventually(lambda: proxy.stalled > 0)
        begun = time.monotonic()
        putting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await putting
        assert time.monotonic() - begun < SLACK
        await eventually(lambda: proxy.open == 0)


async def test_a_slow_reader_is_no_store_that_hangs(s3: ObjectStore) -> None:
    """E6: between two pieces it may take its time: more than the store has for all of its bytes."""
    async with stalling_proxy(s3.url) as proxy:
        key, patience = _new_key(), 1.0
        await _opened(s3, proxy, Meters(), 30.0).put(key, _pieces(SIZE))
        blobs = _opened(s3, proxy, Meters(), patience)
        size, begun = 0, time.monotonic()
        async for piece in blobs.get(key, 0, SIZE):
            if not size:
                await eventually(lambda: time.monotonic() > begun + 2 * patience)
            size += len(piece)
        assert size == SIZE


async def test_a_directory_that_hangs_is_told_in_time(tmp_path: Path) -> None:
    """P2: as one of a network does; a pipe hangs whoever opens it until somebody is at its other end."""
    meters, key = _Counting(), _new_key()
    pipe = tmp_path / key[:2] / key
    pipe.parent.mkdir()
    os.mkfifo(pipe)
    blobs = open_blobs(None, tmp_path, environ={}, patience=0.5, meters=meters)
    try:
        async with asyncio.timeout(SLACK):
            with pytest.raises(StorageUnavailable, match="did not answer in time"):
                await _read(blobs, key)
    finally:
        os.close(os.open(pipe, os.O_RDWR | os.O_NONBLOCK))
    assert meters.troubles == {"timeout": 1}


@pytest.mark.parametrize("mounted", [True, False])
async def test_a_full_disk_is_told_and_keeps_nothing_of_what_had_no_room(mounted: bool) -> None:
    """P2, X5: in the middle of a blob; what was there can be read, and what has room is taken."""
    meters = _Counting()
    with scarce_disk(mounted=mounted) as disk:
        blobs = open_blobs(None, disk.directory, environ={}, meters=meters)
        kept = await blobs.put(_new_key(), _pieces(MIB))
        disk.leave(4 * MIB, os.getpid())

        def files() -> list[str]:
            return [path.name for path in disk.directory.rglob("*") if path.is_file()]

        there = sorted(files())
        async with asyncio.timeout(30):
            for size in (6 * MIB, SIZE):
                with pytest.raises(StorageFull):
                    await blobs.put(_new_key(), _pieces(size))
                assert sorted(files()) == there
        assert meters.troubles == {"full": 2}
        small = await blobs.put(_new_key(), _pieces(2 * MIB))
        read = [piece async for piece in blobs.get(kept.key, 0, kept.size)]
        assert hashlib.sha256(b"".join(read)).digest() == kept.sha256
        disk.free()
        await blobs.delete([small.key])
        assert (await blobs.put(_new_key(), _pieces(6 * MIB))).size == 6 * MIB
