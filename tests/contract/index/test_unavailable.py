"""An index that is away is told as such, in time, and found again when it is back (rule P2)."""

from __future__ import annotations

import asyncio
import logging
import shutil
import subprocess
import sys
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
from tests.support.lite import Lite, running_lite
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


@pytest.mark.parametrize("among", [None, [f"file-{number}" for number in range(5_000)]])
async def test_what_waits_together_fails_together(directory: Path, among: list[str] | None) -> None:
    """P2: nobody's deadline begins only when that of the one before him is over."""
    connected = []

    async def silent(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connected.append(writer)

    server = await asyncio.start_unix_server(silent, directory / "silent.sock")
    try:
        async with _milvus(f"unix:{directory}/silent.sock") as index:
            begun = time.monotonic()
            failed = await asyncio.gather(
                *(index.by_words("t", "s", "apple", limit=1, attachments=among) for _ in range(30)),
                *(index.insert("t", "s", "a", [a_chunk(0)]) for _ in range(30)),
                return_exceptions=True,
            )
            assert {type(each) for each in failed} == {IndexUnavailable}
            assert time.monotonic() - begun < 15 * _TIMEOUT
    finally:
        for writer in connected:
            writer.close()
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


async def test_the_log_repeats_nothing_of_what_was_sent(
    lite: Lite, caplog: pytest.LogCaptureFixture
) -> None:
    """P5, X4: the server's messages do; the log has the kind of error and its number."""
    async with open_client(lite.url, timeout=30.0) as client:
        index = MilvusIndex(client, prefix="logged", model="m")
        await index.insert("t", "s", "a", [a_chunk(0)])
        [name] = [
            name
            for name in await client.call(lambda milvus: milvus.list_collections())
            if name.startswith("logged_")
        ]
        with pytest.raises(IndexUnavailable) as caught:
            await client.call(lambda milvus: milvus.query(name, filter="name == a secret"))
    assert "secret" in str(caught.value.__cause__)
    assert "the vector index failed: " in caplog.text
    assert "secret" not in caplog.text


def test_the_client_is_imported_beside_the_event_loop() -> None:
    """T2: half a second of work, in which every stream of the worker would stand still."""
    script = """
import asyncio, sys, threading
from engine.errors import IndexUnavailable
from storage.milvus.client import open_client
from storage.milvus.index import MilvusIndex

class Watch:
    def find_spec(self, name, path=None, target=None):
        if name == "pymilvus":
            print("imported by", threading.current_thread() is threading.main_thread())

async def main():
    async with open_client("unix:/nobody.sock", timeout=60) as client:
        try:
            await MilvusIndex(client, prefix="p", model="m").count("t", "s", "a")
        except IndexUnavailable:
            print("unavailable")

sys.meta_path.insert(0, Watch())
asyncio.run(main())
"""
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=120, check=True
    )
    assert done.stdout.splitlines() == ["imported by False", "unavailable"]
