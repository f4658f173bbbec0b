"""Milvus Lite on a disk that is full: nothing that was acknowledged is lost, then or behind it (rule T8)."""

from __future__ import annotations

import asyncio
import random
import time

import pytest

from engine.errors import IndexUnavailable
from engine.ports import VectorIndex
from storage.milvus.client import open_client
from storage.milvus.index import MilvusIndex
from tests.support.lite import running_lite
from tests.support.scarce_disk import scarce_disk
from tests.support.stack import eventually
from tests.support.vectors import a_chunk, random_unit

# Lite moves what was written to files half a second behind it.
SETTLED = 1.0
CHUNKS = 50


class _Writer:
    """Writes attachments, and knows which of them were acknowledged."""

    def __init__(self, index: VectorIndex) -> None:
        self._index = index
        self._chance = random.Random(7)
        self._count = 0
        self.acknowledged: list[str] = []

    async def write(self) -> None:
        """Write one more."""
        self._count += 1
        name = f"a{self._count}"
        chunks = [a_chunk(at, name, random_unit(self._chance, 256)) for at in range(CHUNKS)]
        await self._index.insert("t", "s", name, chunks)
        self.acknowledged.append(name)

    async def write_on(self) -> None:
        """Write until that fails."""
        while True:
            await self.write()

    async def lost(self) -> list[str]:
        """Return what was acknowledged and is not there, whole."""
        there = [await self._index.count("t", "s", name) for name in self.acknowledged]
        return [
            name for name, count in zip(self.acknowledged, there, strict=True) if count != CHUNKS
        ]

    async def all_there(self) -> bool:
        """Return whether nothing is lost; False, too, where the index is not back yet."""
        try:
            return await self.lost() == []
        except IndexUnavailable:
            return False


async def _settled() -> None:
    begun = time.monotonic()
    await eventually(lambda: time.monotonic() > begun + SETTLED)


async def test_what_was_acknowledged_survives_a_full_disk_and_a_kill() -> None:
    """T8, P2: what has no room is refused; the rest is found meanwhile, and behind a kill."""
    with scarce_disk() as disk:
        async with (
            running_lite(disk.directory / "data") as lite,
            open_client(lite.url, timeout=10.0) as client,
        ):
            writer = _Writer(MilvusIndex(client, prefix="full", model="m"))
            for _ in range(3):
                await writer.write()
            await _settled()
            disk.leave(256 << 10, lite.pid)
            async with asyncio.timeout(30):
                with pytest.raises(IndexUnavailable):
                    await writer.write_on()
            assert len(writer.acknowledged) > 3
            await _settled()
            assert await writer.lost() == []

            disk.free()
            for _ in range(3):
                await writer.write()
            await lite.kill()
            await lite.start()
            await eventually(writer.all_there, 30)
