"""The child process that reads documents: started when it is needed, and again when it has died.

It is started, not forked: a worker has the threads and connections of gRPC, which no fork of it would
survive.
"""

from __future__ import annotations

import asyncio
import logging
import os
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
        try:
            kind, size = wire.HEAD.unpack(await self._stream.readexactly(wire.HEAD.size))
            if size > wire.FRAME_BYTES:
                raise ValueError("a frame over its bound")
            return kind, await self._stream.readexactly(size)
        except ConnectionError as error:
            raise EOFError from error


class Reader:
    """Keeps the template alive and hands it jobs."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._control: socket.socket | None = None
        self._ending: set[asyncio.Task[int]] = set()
        self._closed = False
        self._told_of_filter = False

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
                kind, payload = await answers.next()
        except TimeoutError as error:
            self._end()
            raise _failed("the process that reads documents does not answer") from error
        if kind == wire.ENDED and wire.status_of(payload) < 0:
            raise EOFError
        if kind != wire.STARTED:
            _log.error(
                "documents are not read: the process that reads them could not be confined, so it ended; "
                "something around it refuses prctl, setrlimit or setresuid"
            )
            raise _failed("the process that reads documents could not be confined")
        if payload == wire.UNFILTERED and not self._told_of_filter:
            self._told_of_filter = True
            _log.warning(
                "this kernel has no seccomp: what reads documents is less confined (said once)"
            )

    def _send(self, message: bytes, descriptors: list[int]) -> None:
        try:
            socket.send_fds(self._running(), [message], descriptors)
        except OSError:
            # It is dying: that is seen here before it has ended.
            self._end()
            try:
                socket.send_fds(self._running(), [message], descriptors)
            except OSError as error:
                raise EOFError from error

    def _running(self) -> socket.socket:
        """Return the control socket of a template that runs, as far as that can be known."""
        if self._process is not None and self._process.poll() is not None:
            self._end()
        if self._control is None:
            self._control = self._start()
        return self._control

    def _start(self) -> socket.socket:
        if self._closed:
            raise _failed("the gateway is stopping")
        control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        control.setblocking(False)
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
                control.close()
                raise _failed("the process that reads documents cannot be started") from error
        return control

    def _end(self) -> None:
        """End the template, and whatever it has forked with it; the next job starts another one."""
        if self._control is not None:
            self._control.close()
        if self._process is not None:
            if self._process.poll() is not None:
                _log.warning("the process that reads documents died; the next one starts another")
            self._process.kill()
            waiting = asyncio.create_task(asyncio.to_thread(self._process.wait))
            self._ending.add(waiting)
            waiting.add_done_callback(self._ending.discard)
        self._control = self._process = None

    async def close(self) -> None:
        """End the child process for good."""
        self._closed = True
        self._end()
        await asyncio.gather(*self._ending)


def _failed(why: str) -> ExtractionFailed:
    return ExtractionFailed(f"The document could not be read: {why}.")
