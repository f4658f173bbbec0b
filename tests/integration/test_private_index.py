"""The private Milvus Lite of `holdfast up`: there without a setting, and started again when it dies."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import tempfile
from collections.abc import Iterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from engine.errors import IndexUnavailable
from extproc.index import open_index
from extproc.settings import Settings
from extproc.up.index import with_index
from storage.postgres.embedded_process import children
from tests.support.vectors import a_chunk, unit

DEADLINE = 60.0


@pytest.fixture
def directory() -> Iterator[Path]:
    """A directory with a path that is short enough for a socket."""
    path = Path(tempfile.mkdtemp(prefix="holdfast-test-"))
    (path / "run").mkdir()
    yield path
    shutil.rmtree(path)


def _pid(socket: Path) -> int:
    for pid in children(os.getpid()):
        if f"\0{socket}\0".encode() in Path(f"/proc/{pid}/cmdline").read_bytes():
            return pid
    raise LookupError("no Milvus Lite of ours runs")


async def test_it_is_there_and_is_started_again(directory: Path) -> None:
    """P2: what was put in before it was killed is found by the same index afterwards."""
    said: list[str] = []
    async with AsyncExitStack() as parts:
        given = Settings(data_dir=directory)
        settings = await with_index(given, parts, said.append, os.environ)
        assert (given.index.kind, settings.index.kind) == (None, "milvus")
        index = await parts.enter_async_context(open_index(settings, "m"))
        assert index is not None
        await index.insert("t", "s", "a", [a_chunk(0, "apple")])
        os.kill(_pid(settings.index_socket), signal.SIGKILL)
        async with asyncio.timeout(DEADLINE):
            while True:
                try:
                    await index.insert("t", "s", "b", [a_chunk(0, "pear")])
                    break
                except IndexUnavailable:
                    continue
        hits = await index.by_vector("t", "s", unit(1, 0, 0, 0), limit=9)
        assert {hit.attachment for hit in hits} == {"a", "b"}
        assert any("milvus-lite was ended by SIGKILL" in line for line in said)


async def test_it_is_not_started_where_the_settings_say_otherwise(directory: Path) -> None:
    """An index that is off, or somebody else's, is taken as it is."""
    settings = Settings(data_dir=directory).having(index={"kind": "off"})
    async with AsyncExitStack() as parts:
        assert await with_index(settings, parts, print, os.environ) == settings
    assert not (directory / "milvus").exists()
