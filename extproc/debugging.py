"""A worker's window: a unix socket at which `holdfast debug` looks at one of its responses while it runs.

The question is one line, the id; the answer is a JSON object a line, from what the run is at now to its end.
No restart, no log level, no database: it answers as long as the worker's event loop does.
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from pathlib import Path

from engine.api.json import encode
from engine.live import Live
from engine.observer import Observer, Seen

_QUESTION_SECONDS = 5.0
_QUESTION_BYTES = 1024
# All that others may do with it.
_FOR_OTHERS = 0o177


@asynccontextmanager
async def window(path: Path, live: Live) -> AsyncIterator[None]:
    """Answer at `path` while the block runs; only this user can ask."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await _answer(live, reader, writer)
        except (OSError, TimeoutError, ValueError):
            # Whoever asked has gone, or did not ask.
            pass
        finally:
            writer.close()

    server = await asyncio.start_unix_server(answer, sock=_bound(path), limit=_QUESTION_BYTES)
    try:
        yield
    finally:
        server.close()


def _bound(path: Path) -> socket.socket:
    """Return a socket that was never open to others: its mode is there when its file is."""
    path.unlink(missing_ok=True)
    listening = socket.socket(socket.AF_UNIX)
    former = os.umask(_FOR_OTHERS)
    try:
        listening.bind(str(path))
    finally:
        os.umask(former)
    return listening


async def _left(reader: asyncio.StreamReader) -> None:
    """Wait until whoever asked has gone; what they say meanwhile is not kept."""
    while await reader.read(_QUESTION_BYTES):
        pass


async def _answer(live: Live, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    async with asyncio.timeout(_QUESTION_SECONDS):
        question = (await reader.readline()).decode("utf-8", "replace").strip()
    loop = live.running(question)
    if loop is None:
        await _write(writer, [])
        return
    showing = asyncio.ensure_future(_show(Observer(loop), writer))
    leaving = asyncio.ensure_future(_left(reader))
    try:
        # Where nothing happens nothing is written, and so nobody would be missed.
        await asyncio.wait({showing, leaving}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in (showing, leaving):
            task.cancel()
        await asyncio.wait({showing, leaving})


async def _show(observer: Observer, writer: asyncio.StreamWriter) -> None:
    async with aclosing(observer.lines()) as lines:
        async for some in lines:
            await _write(writer, some)


async def _write(writer: asyncio.StreamWriter, lines: list[Seen]) -> None:
    writer.write(b"".join(encode(line) + b"\n" for line in lines))
    await writer.drain()


async def look(path: Path, response_id: str) -> AsyncIterator[str]:
    """Ask a worker, and yield the lines of its answer; none where the response does not run there."""
    try:
        reader, writer = await asyncio.open_unix_connection(str(path))
    except OSError:
        return
    try:
        writer.write(response_id.encode() + b"\n")
        while line := await reader.readline():
            yield line.decode().rstrip()
    finally:
        writer.close()
