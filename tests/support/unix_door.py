"""A unix socket that leads to a port of this machine: for whoever cannot reach the port."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from tests.support.apart import relay


@asynccontextmanager
async def unix_door(path: Path, port: int) -> AsyncIterator[Path]:
    """Listen on `path` for what is meant for `port`."""
    running: set[asyncio.Task[None]] = set()

    def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.get_running_loop().create_task(relay(port, reader, writer))
        running.add(task)
        task.add_done_callback(running.discard)

    server = await asyncio.start_unix_server(connected, path)
    try:
        yield path
    finally:
        server.close()
        for task in [*running]:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)
