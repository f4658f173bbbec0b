"""Milvus Lite killed with SIGKILL under load: back within a deadline, and correct."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from functools import partial
from typing import TypeVar

import pytest

from engine.errors import IndexUnavailable
from engine.ports import VectorIndex
from storage.milvus.client import open_client
from storage.milvus.index import MilvusIndex
from tests.support.exact_index import ExactIndex
from tests.support.lite import Lite, running_lite
from tests.support.vectors import a_chunk, random_unit

_T = TypeVar("_T")

_ROUNDS = 10
_WRITERS = 4
_DIMENSION = 32
_BACK_SECONDS = 30.0
# What is written between two kills, at least.
_INSERTS = 8


class _Load:
    """Writers and readers of one tenant, and what was acknowledged to them."""

    def __init__(self, indexes: list[VectorIndex]) -> None:
        self._indexes = indexes
        self.acknowledged = ExactIndex()
        self.inserted = 0
        self.more = asyncio.Event()
        self.failures = 0

    async def write(self, number: int) -> None:
        chance = random.Random(number)
        for file in range(1_000_000):
            name = f"{number}-{file}"
            chunks = [a_chunk(at, name, random_unit(chance, _DIMENSION)) for at in range(50)]
            try:
                await self._indexes[number].insert("t", "s", name, chunks)
            except IndexUnavailable:
                self.failures += 1
                continue
            await self.acknowledged.insert("t", "s", name, chunks)
            gone = [f"{number}-{file - 2}"]
            if file % 5 == 4:
                # One of those before goes again; also where that is not acknowledged, it may have gone.
                await self.acknowledged.remove("t", "s", gone)
                await _patiently(partial(self._indexes[number].remove, "t", "s", gone))
            self.inserted += 1
            self.more.set()

    async def read(self, number: int) -> None:
        chance = random.Random(-number)
        while True:
            try:
                hits = await self._indexes[number].by_vector(
                    "t", "s", random_unit(chance, _DIMENSION), limit=10
                )
                assert all(-1.01 < hit.score < 1.01 for hit in hits)
            except IndexUnavailable:
                self.failures += 1

    async def goes_on(self) -> None:
        target = self.inserted + _INSERTS
        while self.inserted < target:
            self.more.clear()
            await self.more.wait()


async def _patiently(work: Callable[[], Awaitable[_T]]) -> _T:
    """Repeat something until the index is back; a deadline is around it."""
    async with asyncio.timeout(_BACK_SECONDS):
        while True:
            try:
                return await work()
            except IndexUnavailable:
                continue


async def _killed(lite: Lite, load: _Load) -> None:
    await lite.kill()
    async with asyncio.timeout(_BACK_SECONDS):
        await lite.start()
        await load.goes_on()


@pytest.mark.timeout(400)
async def test_killed_under_load_it_comes_back_and_lost_nothing_acknowledged() -> None:
    """T8: ten kills under four writers and readers; back each time, with all that was answered."""
    async with AsyncExitStack() as opened:
        lite = await opened.enter_async_context(running_lite())
        indexes: list[VectorIndex] = []
        for _ in range(_WRITERS):
            client = await opened.enter_async_context(open_client(lite.url, timeout=5.0))
            indexes.append(MilvusIndex(client, prefix="test", model="m"))
        load = _Load(indexes)
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(load.write(number)) for number in range(_WRITERS)]
            tasks += [group.create_task(load.read(number)) for number in range(_WRITERS)]
            await load.goes_on()
            for _ in range(_ROUNDS):
                await _killed(lite, load)
            for task in tasks:
                task.cancel()
        assert load.failures > 0
        await _same(indexes[0], load.acknowledged)


async def _same(index: VectorIndex, acknowledged: ExactIndex) -> None:
    """All that was acknowledged is there once, and found where an exact search finds it."""
    for name in acknowledged.attachments("t", "s"):
        assert await _patiently(partial(index.count, "t", "s", name)) == 50, name
    chance = random.Random(99)
    names = acknowledged.attachments("t", "s")
    for _ in range(10):
        question = random_unit(chance, _DIMENSION)
        hits = await index.by_vector("t", "s", question, limit=10, attachments=names)
        true = await acknowledged.by_vector("t", "s", question, limit=10)
        assert [(hit.attachment, hit.number) for hit in hits] == [
            (hit.attachment, hit.number) for hit in true
        ]
