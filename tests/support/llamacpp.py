"""A real llama.cpp in a process of its own: a fault of its ends no test run."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

MODEL = "tiny"
_START_SECONDS = 30.0


@asynccontextmanager
async def serving(directory: Path) -> AsyncIterator[str]:
    """Run one with what it needs in that directory; yield its URL."""
    with (directory / "log").open("wb") as log:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "tests.support.llamacpp_server", str(directory)),
            stdout=asyncio.subprocess.PIPE,
            stderr=log,
        )
    try:
        assert process.stdout is not None
        url = await asyncio.wait_for(process.stdout.readline(), _START_SECONDS)
        assert url, (directory / "log").read_text(errors="replace")[-2000:]
        yield url.decode().strip()
    finally:
        process.terminate()
        await process.wait()
