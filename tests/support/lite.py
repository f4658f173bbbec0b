"""Milvus Lite in a child process, as `holdfast up` runs it."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

from extproc.up import probes
from extproc.up.processes import Child, Command, running


class Lite:
    """A running Lite: `url` is what an index is opened with."""

    def __init__(self, url: str, child: Child) -> None:
        self.url = url
        self.child = child


@asynccontextmanager
async def running_lite() -> AsyncIterator[Lite]:
    """Run Lite in a directory of its own, started again whenever it ends."""
    directory = Path(tempfile.mkdtemp(prefix="holdfast-lite-"))
    socket = directory / "lite.sock"
    command = Command(
        name="milvus-lite",
        argv=[
            *(sys.executable, "-m", "extproc.milvus_lite"),
            *("--data", str(directory / "data"), "--socket", str(socket)),
        ],
        environment=os.environ,
        is_ready=partial(probes.accepts, socket),
        ready_seconds=90.0,
    )
    try:
        async with running([command], lambda _line: None) as [child]:
            yield Lite(f"unix:{socket}", child)
    finally:
        shutil.rmtree(directory)
