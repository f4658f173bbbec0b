"""Milvus Lite in a child process, as `holdfast up` runs it."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from extproc.up.index import lite_command
from extproc.up.processes import Child, running


class Lite:
    """A running Lite: `url` is what an index is opened with."""

    def __init__(self, url: str, child: Child) -> None:
        self.url = url
        self._child = child

    @property
    def pid(self) -> int:
        """Its process."""
        pid = self._child.pid
        assert pid is not None
        return pid

    async def kill(self) -> None:
        """End it with SIGKILL, as a crash does."""
        self._child.kill()
        await self._child.gone()

    async def start(self) -> None:
        """Start it again over what is there; returns when it can be asked."""
        await self._child.start()


@asynccontextmanager
async def running_lite(data: Path | None = None) -> AsyncIterator[Lite]:
    """Run Lite, with its data in a directory of its own unless another is given."""
    directory = Path(tempfile.mkdtemp(prefix="holdfast-lite-"))
    socket = directory / "lite.sock"
    command = lite_command(data or directory / "data", socket, os.environ)
    try:
        async with running([command], lambda _line: None) as [child]:
            yield Lite(f"unix:{socket}", child)
    finally:
        shutil.rmtree(directory)
