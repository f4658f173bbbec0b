"""What vector indexes take: chunks put in, and searches, beside each other in one run.

`python -m bench index`: Milvus Lite as `holdfast up` runs it, pgvector in the embedded Postgres, and a Milvus
where `--milvus URL` names one. Most chunks are in one store; a small store is beside it, as most stores are.
"""

from __future__ import annotations

import asyncio
import os
import random
import statistics
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import (
    AbstractAsyncContextManager,
    AsyncExitStack,
    asynccontextmanager,
    contextmanager,
)
from pathlib import Path

import msgspec
import numpy as np

from engine.ports import IndexedChunk, VectorIndex
from extproc.up.index import lite_command
from extproc.up.processes import running
from storage.milvus.client import open_client
from storage.milvus.index import MilvusIndex
from storage.pgvector.index import PgvectorIndex
from storage.pgvector.migrations import migrate_vectors
from storage.postgres.embedded import embedded_postgres
from storage.postgres.pool import open_pool

_DIMENSION = 384
_WORDS = 150
_OF_A_FILE = 100
_SMALL = 1000
_LIMIT = 20
_WRITERS = 2
_LEAST = 2
_TIMEOUT = 120.0

_Search = Callable[[VectorIndex, random.Random], Awaitable[object]]


class _Result(msgspec.Struct, frozen=True):
    """Of one index at one size; times in milliseconds: p50, p99, and the rate of eight at a time."""

    rate: float
    searches: dict[str, tuple[float, float, float]]


async def run(sizes: Sequence[int], seconds: float, milvus: str | None) -> None:
    """Measure all indexes at all sizes (chunks of the large store), and print a table of each."""
    for size in sizes:
        results = {}
        for name, opened in _indexes(milvus).items():
            async with opened() as index:
                results[name] = await _measure(index, size, seconds)
        _print(size, results)


def _indexes(
    milvus: str | None,
) -> dict[str, Callable[[], AbstractAsyncContextManager[VectorIndex]]]:
    found: dict[str, Callable[[], AbstractAsyncContextManager[VectorIndex]]] = {
        "pgvector": _pgvector,
        "Lite": _lite,
    }
    if milvus is not None:
        found["Milvus"] = lambda: _milvus(milvus)
    return found


@contextmanager
def _directory() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="holdfast-bench-") as directory:
        path = Path(directory)
        path.chmod(0o711)  # the database's user may pass through
        yield path


@asynccontextmanager
async def _pgvector() -> AsyncIterator[VectorIndex]:
    with _directory() as directory:
        async with embedded_postgres(directory / "postgres") as server:
            await migrate_vectors(server.conninfo)
            async with open_pool(server.conninfo, max_size=4, timeout=_TIMEOUT) as pool:
                yield PgvectorIndex(pool, "bench")


@asynccontextmanager
async def _lite() -> AsyncIterator[VectorIndex]:
    with _directory() as directory:
        socket = directory / "lite.sock"
        command = lite_command(directory / "data", socket, os.environ)
        async with AsyncExitStack() as opened:
            await opened.enter_async_context(running([command], print))
            client = await opened.enter_async_context(
                open_client(f"unix:{socket}", timeout=_TIMEOUT)
            )
            yield MilvusIndex(client, prefix="bench", model="bench")


@asynccontextmanager
async def _milvus(url: str) -> AsyncIterator[VectorIndex]:
    async with open_client(url, timeout=_TIMEOUT) as client:
        index = MilvusIndex(client, prefix="holdfast_bench", model="bench")
        try:
            yield index
        finally:
            await index.clear()


async def _measure(index: VectorIndex, size: int, seconds: float) -> _Result:
    await _fill(index, "small", _SMALL)
    begun = time.perf_counter()
    await _fill(index, "large", size)
    rate = size / (time.perf_counter() - begun)
    searches = {}
    for name, search in _searches(size).items():
        await search(index, random.Random(0))
        times = await _times(index, search, 1, seconds)
        begun = time.perf_counter()
        count = len(await _times(index, search, 8, seconds))
        cuts = statistics.quantiles(times, n=100, method="inclusive")
        at_once = count / (time.perf_counter() - begun)
        searches[name] = (1000 * cuts[49], 1000 * cuts[98], at_once)
    return _Result(rate, searches)


def _searches(size: int) -> dict[str, _Search]:
    files = [f"file-{number}" for number in range(size // _OF_A_FILE)]

    def by_vector(store: str, some: int | None) -> _Search:
        async def search(index: VectorIndex, chance: random.Random) -> object:
            among = None if some is None else chance.sample(files, min(some, len(files)))
            vector = _vectors(chance.randrange(1 << 30), 1)[0]
            return await index.by_vector("bench", store, vector, limit=_LIMIT, attachments=among)

        return search

    def by_words(store: str, some: int | None) -> _Search:
        async def search(index: VectorIndex, chance: random.Random) -> object:
            among = None if some is None else chance.sample(files, min(some, len(files)))
            asked = " ".join(_text(chance, 6))
            return await index.by_words("bench", store, asked, limit=_LIMIT, attachments=among)

        return search

    return {
        "by vector": by_vector("large", None),
        "by vector, 10 files": by_vector("large", 10),
        "by vector, small store": by_vector("small", None),
        "by words": by_words("large", None),
        "by words, 10 files": by_words("large", 10),
        "by words, small store": by_words("small", None),
    }


async def _times(index: VectorIndex, search: _Search, callers: int, seconds: float) -> list[float]:
    times: list[float] = []
    end = time.perf_counter() + seconds

    async def call(number: int) -> None:
        chance = random.Random(number)
        done = 0
        while (begun := time.perf_counter()) < end or done < _LEAST:
            await search(index, chance)
            done += 1
            times.append(time.perf_counter() - begun)

    await asyncio.gather(*(call(number) for number in range(callers)))
    return times


async def _fill(index: VectorIndex, store: str, size: int) -> None:
    files = iter(range(size // _OF_A_FILE))

    async def write() -> None:
        for number in files:
            chance = random.Random(number)
            chunks = [
                IndexedChunk(at, " ".join(_text(chance, _WORDS)), vector)
                for at, vector in enumerate(_vectors(number, _OF_A_FILE))
            ]
            await index.insert("bench", store, f"file-{number}", chunks)

    await asyncio.gather(*(write() for _ in range(_WRITERS)))


def _vectors(seed: int, count: int) -> list[bytes]:
    """Return vectors of unit length; their directions are random."""
    found = np.random.default_rng(seed).standard_normal((count, _DIMENSION), dtype=np.float32)
    found /= np.linalg.norm(found, axis=1, keepdims=True)
    return [vector.tobytes() for vector in found]


def _text(chance: random.Random, words: int) -> list[str]:
    """Return words of 20,000, the first of which are the most frequent, as in a language."""
    return [f"word{int(20_000 ** chance.random())}" for _ in range(words)]


def _print(size: int, results: dict[str, _Result]) -> None:
    names = list(results)
    first = results[names[0]]
    print(f"\n{size:,} chunks in one store, {_SMALL:,} in a small one, {_DIMENSION} numbers each\n")
    print(
        "| | " + " | ".join(f"{name} p50, p99 ms (8 at a time: a second)" for name in names) + " |"
    )
    print("|---" * (len(names) + 1) + "|")
    rates = (f"{results[name].rate:,.0f} ({first.rate / results[name].rate:.1f})" for name in names)
    print("| chunks put in a second (times as slow) | " + " | ".join(rates) + " |")
    for search, (slowness, *_) in first.searches.items():
        cells = []
        for name in names:
            p50, p99, rate = results[name].searches[search]
            cells.append(f"{p50:.1f}, {p99:.1f} ({rate:.0f}; {p50 / slowness:.1f} times)")
        print(f"| {search} | " + " | ".join(cells) + " |")
