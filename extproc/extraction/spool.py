"""A document on its way to the child: a file without a name, which is gone when nobody has it open."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import IO

from engine.errors import ExtractionFailed, ExtractionRefused
from engine.undisturbed import undisturbed

# So much is gathered before a thread writes it.
_BLOCK = 1 << 20


@asynccontextmanager
async def spooled(
    pieces: AsyncIterator[bytes], *, most: int, directory: Path | None
) -> AsyncIterator[int]:
    """Yield a descriptor of a file with these bytes; raises ExtractionRefused for over `most` of them."""
    try:
        file = await asyncio.to_thread(_opened, directory)
    except OSError as error:
        raise _failed(error) from error
    try:
        size, block = 0, bytearray()
        async for piece in pieces:
            size += len(piece)
            if size > most:
                raise ExtractionRefused(f"The document is over the limit of {most} bytes.")
            block += piece
            if len(block) >= _BLOCK:
                await _write(file, block)
                block = bytearray()
        await _write(file, block)
        yield file.fileno()
    finally:
        file.close()


def _opened(directory: Path | None) -> IO[bytes]:
    return tempfile.TemporaryFile(buffering=0, dir=directory)


async def _write(file: IO[bytes], block: bytearray) -> None:
    try:
        # The file is closed when we are cancelled: not before the thread has left it, because others may
        # have its descriptor then.
        await undisturbed(asyncio.to_thread(_write_all, file, block))
    except OSError as error:
        raise _failed(error) from error


def _write_all(file: IO[bytes], block: bytearray) -> None:
    left = memoryview(block)
    while left:
        left = left[file.write(left) :]


def _failed(error: OSError) -> ExtractionFailed:
    return ExtractionFailed(
        f"The document could not be read: there is no room for it on its way ({error.strerror})."
    )
