"""A worker's window: a unix socket at which `holdfast debug` looks at one of its responses while it runs.

The question is one line, the id; the answer is a JSON object a line, from what the run is at now to its end.
No restart, no log level, no database: it answers as long as the worker's event loop does.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from pathlib import Path

from engine.api.json import encode
from engine.live import Live
from engine.observer import Observer, Seen

_QUESTION_SECONDS = 5.0
_QUESTION_BYTES = 1024
_OURS_ALONE = 0o600


@asynccontextmanager
async def window(socket: Path, live: Live) -> AsyncIterator[None]:
    """Answer on `socket` while the block runs; only this user can ask."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await _answer(live, reader, writer)
        except (OSError, TimeoutError, ValueError):
            # Whoever asked has gone, or did not ask.
            pass
        finally:
            writer.close()

    server = await asyncio.start_unix_server(answer, str(socket), limit=_QUESTION_BYTES)
    _close_to_others(socket)
    try:
        yield
    finally:
        server.close()


def _close_to_others(socket: Path) -> None:
    socket.chmod(_OURS_ALONE)


async def _answer(live: Live, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    async with asyncio.timeout(_QUESTION_SECONDS):
        question = (await reader.readline()).decode("utf-8", "replace").strip()
    loop = live.running(question)
    if loop is None:
        await _write(writer, [])
        return
    showing = asyncio.ensure_future(_show(Observer(loop), writer))
    leaving = asyncio.ensure_future(reader.read())
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


async def look(socket: Path, response_id: str) -> AsyncIterator[str]:
    """Ask a worker, and yield the lines of its answer; none where the response does not run there."""
    try:
        reader, writer = await asyncio.open_unix_connection(str(socket))
    except OSError:
        return
    try:
        writer.write(response_id.encode() + b"\n")
        while line := await reader.readline():
            yield line.decode().rstrip()
    finally:
        writer.close()
