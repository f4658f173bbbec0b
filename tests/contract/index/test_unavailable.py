"""An index that is away is told as such, in time, and found again when it is back (rule P2)."""

from __future__ import annotations

import asyncio
import logging
import shutil
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from engine.errors import IndexUnavailable
from engine.ports import VectorIndex
from storage.milvus.client import open_client
from storage.milvus.index import MilvusIndex
from storage.pgvector.index import PgvectorIndex
from storage.postgres.pool import open_pool
from tests.support.lite import running_lite
from tests.support.vectors import a_chunk, unit

_TIMEOUT = 1.0
_QUESTION = unit(1, 0, 0, 0)


@pytest.fixture
def directory() -> Iterator[Path]:
    """A directory with a path that is short enough for a socket."""
    path = Path(tempfile.mkdtemp(prefix="holdfast-test-"))
    yield path
    shutil.rmtree(path)


@asynccontextmanager
async def _milvus(url: str, timeout: float = _TIMEOUT) -> AsyncIterator[VectorIndex]:
    async with open_client(url, timeout=timeout) as client:
        yield MilvusIndex(client, prefix="test", model="m")


@asynccontextmanager
async def _pgvector(directory: Path) -> AsyncIterator[VectorIndex]:
    async with open_pool(f"host={directory} dbname=x user=x", timeout=_TIMEOUT) as pool:
        yield PgvectorIndex(pool, "m")


async def _all_fail(index: VectorIndex) -> None:
    """Every operation fails as unavailable, at its deadline at the latest."""
    for work in (
        lambda: index.insert("t", "s", "a", [a_chunk(0)]),
        lambda: index.by_vector("t", "s", _QUESTION, limit=1),
        lambda: index.by_words("t", "s", "apple", limit=1),
        lambda: index.remove("t", "s", ["a"]),
        lambda: index.count("t", "s", "a"),
        lambda: index.clear(),
    ):
        begun = time.monotonic()
        with pytest.raises(IndexUnavailable):
            await work()
        assert time.monotonic() - begun < 10 * _TIMEOUT


async def test_nobody_listens(directory: Path, caplog: pytest.LogCaptureFixture) -> None:
    """P2: unavailable, and no traceback of the driver's in the log for each call."""
    async with _milvus(f"unix:{directory}/nobody.sock") as index:
        await _all_fail(index)
    async with _pgvector(directory) as index:
        await _all_fail(index)
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]


async def test_somebody_listens_and_says_nothing(directory: Path) -> None:
    """P2: the deadline holds also where a server takes the call and never answers."""
    path = directory / "silent.sock"
    postgres = directory / ".s.PGSQL.5432"
    connected = []

    async def silent(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connected.append(writer)

    servers = [await asyncio.start_unix_server(silent, at) for at in (path, postgres)]
    try:
        async with _milvus(f"unix:{path}") as index:
            await _all_fail(index)
        async with _pgvector(directory) as index:
            await _all_fail(index)
    finally:
        for writer in connected:
            writer.close()
        for server in servers:
            server.close()
            await server.wait_closed()


async def test_what_was_away_is_found_again() -> None:
    """P2: the same client goes on when Lite is back, with what was put in before."""
    async with running_lite() as lite, _milvus(lite.url, timeout=5.0) as index:
        await index.insert("t", "s", "a", [a_chunk(0, "apple")])
        await lite.kill()
        with pytest.raises(IndexUnavailable):
            await index.by_vector("t", "s", _QUESTION, limit=1)
        await lite.start()
        async with asyncio.timeout(30):
            while True:
                try:
                    hits = await index.by_words("t", "s", "apple", limit=9)
                    break
                except IndexUnavailable:
                    continue
        assert [hit.attachment for hit in hits] == ["a"]
        await index.insert("t", "s", "b", [a_chunk(0, "apple")])
        assert len(await index.by_vector("t", "s", _QUESTION, limit=9)) == 2


async def test_a_database_without_the_tables_says_what_to_do(empty_database: str) -> None:
    """P2: as the store does where nothing was migrated."""
    async with open_pool(empty_database) as pool:
        with pytest.raises(IndexUnavailable, match="holdfast migrate"):
            await PgvectorIndex(pool, "m").count("t", "s", "a")
