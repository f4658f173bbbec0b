"""The child process that reads documents: started when it is needed, and again when it has died.

It is started, not forked: a worker has the threads and connections of gRPC, which no fork of it would
survive.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec

from engine.errors import ExtractionFailed
from extproc.extraction import wire
from extproc.extraction.wire import Job

_log = logging.getLogger(__name__)

_ROOT = Path(__file__).parents[2]
# From the start of the process to the first document: imports, on a machine that is busy.
_START_SECONDS = 60.0


class Answers:
    """What comes of one job, in frames."""

    def __init__(self, stream: asyncio.StreamReader) -> None:
        self._stream = stream

    async def next(self) -> tuple[bytes, bytes]:
        """Return kind and payload of the next frame; raises EOFError where the template died, ValueError."""
        kind, size = wire.HEAD.unpack(await self._stream.readexactly(wire.HEAD.size))
        if size > wire.FRAME_BYTES:
            raise ValueError("a frame over its bound")
        return kind, await self._stream.readexactly(size)


class Reader:
    """Keeps the template alive and hands it jobs."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._control: socket.socket | None = None

    @property
    def pid(self) -> int | None:
        """The template's process, if one was started."""
        return None if self._process is None else self._process.pid

    @asynccontextmanager
    async def job(self, job: Job, document: int) -> AsyncIterator[Answers]:
        """Yield what comes of a document, which has been begun; its process ends with this block.

        Raises EOFError where the template died before it began, ExtractionFailed where it does not begin.
        """
        ours, theirs = socket.socketpair()
        try:
            with theirs:
                self._send(msgspec.msgpack.encode(job), [document, theirs.fileno()])
            stream, writer = await asyncio.open_unix_connection(sock=ours)
        except BaseException:
            ours.close()
            raise
        try:
            answers = Answers(stream)
            await self._begun(answers)
            yield answers
        finally:
            # The template sees it, and ends the process that reads.
            writer.transport.abort()

    async def _begun(self, answers: Answers) -> None:
        try:
            async with asyncio.timeout(_START_SECONDS):
                kind, _ = await answers.next()
        except TimeoutError as error:
            self._kill()
            raise _failed("the process that reads documents does not answer") from error
        if kind != wire.STARTED:
            raise _failed("the process that reads documents could not be confined")

    def _send(self, message: bytes, descriptors: list[int]) -> None:
        if self._process is None or self._process.poll() is not None:
            self._start()
        assert self._control is not None
        try:
            socket.send_fds(self._control, [message], descriptors)
        except OSError as error:
            # It has just died, or takes nothing: another one is started next time.
            self._kill()
            raise EOFError from error

    def _start(self) -> None:
        if self._control is not None:
            _log.warning("the process that reads documents died; another one is started")
            self._control.close()
        self._control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._control.setblocking(False)
        with theirs:
            try:
                self._process = subprocess.Popen(
                    [
                        *(sys.executable, "-P", "-s", "-m", "extproc.extraction"),
                        *(str(theirs.fileno()), str(os.getpid())),
                    ],
                    pass_fds=[theirs.fileno()],
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    # Nothing of our environment, where secrets are.
                    env={"PYTHONPATH": str(_ROOT), "LC_ALL": "C.UTF-8", "OPENPYXL_LXML": "False"},
                    cwd="/",
                    start_new_session=True,
                )
            except OSError as error:
                raise _failed("the process that reads documents cannot be started") from error

    def _kill(self) -> None:
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(signal.SIGKILL)

    async def close(self) -> None:
        """End the template, and whatever it has forked with it."""
        if self._control is not None:
            self._control.close()
        if self._process is not None:
            self._kill()
            await asyncio.to_thread(self._process.wait)


def _failed(why: str) -> ExtractionFailed:
    return ExtractionFailed(f"The document could not be read: {why}.")
