"""The port: documents are spooled, read in a process of their own, and what comes of it is counted."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import msgspec

from engine.errors import ExtractionFailed, ExtractionRefused
from engine.ports.extraction import Chunking
from extproc.extraction import wire
from extproc.extraction.bounds import MIB, Bounds
from extproc.extraction.reader import Answers, Reader
from extproc.extraction.spool import spooled
from extproc.extraction.wire import Cut, Job
from extproc.settings_extraction import Extraction as ExtractionSettings

# A process that crashed may have been a victim; one that crashes again on the same document was not.
_TRIES = 2
# Chunks overlap, by half of each at most, and each has a head.
_CHUNKED_TIMES = 4
_MOST_NAME = 1000
# So many times its time of the processor may a document take on a machine that is busy: one that a client
# waits for, and one of a vector store, which nobody does.
_WAITED_FOR, _NOT_WAITED_FOR = 2, 10
# It ran out of its time of the processor.
_SPENT = (-signal.SIGPROF, -signal.SIGXCPU)
# Nothing within the process ends it so: the kernel that has no memory left, or somebody.
_KILLED = (-signal.SIGKILL, -signal.SIGTERM, -signal.SIGALRM)


class _Crashed(Exception):
    """The process that read the document died of `status`, as the template tells it."""

    def __init__(self, status: int) -> None:
        super().__init__(status)
        self.status = status


class Documents:
    """Implements `engine.ports.Extraction`, for one worker.

    Documents that clients wait for have a turn of their own: those of vector stores may be many, and slow.
    """

    def __init__(self, settings: ExtractionSettings) -> None:
        self._settings = settings
        self.reader = Reader()
        self._free = asyncio.Semaphore(settings.concurrency)
        self._free_for_requests = asyncio.Semaphore(settings.request_concurrency)

    async def text(self, filename: str, pieces: AsyncIterator[bytes], *, most: int) -> str:
        """Return the text of a document; one of over `most` bytes of UTF-8 is refused.

        Raises ExtractionFailed when its turn does not come within `wait_seconds`.
        """
        bounds = self._bounds(_WAITED_FOR)
        bounds = msgspec.structs.replace(bounds, text_bytes=min(most, bounds.text_bytes))
        async with _turn(self._free_for_requests, self._settings.wait_seconds):
            frames = await self._read(Job(filename[-_MOST_NAME:], bounds, None), pieces)
        return b"".join(payload for _, payload in frames).decode()

    async def chunks(
        self, filename: str, pieces: AsyncIterator[bytes], chunking: Chunking
    ) -> Sequence[str]:
        """Return the text of a document in chunks, at least one."""
        bounds = self._bounds(_NOT_WAITED_FOR)
        cut = Cut(chunking.size, chunking.overlap)
        async with self._free:
            frames = await self._read(Job(filename[-_MOST_NAME:], bounds, cut), pieces)
        return [payload.decode() for _, payload in frames]

    def _bounds(self, wall_times: int) -> Bounds:
        settings = self._settings
        return Bounds(
            text_bytes=settings.text_bytes,
            pages=settings.pages,
            entries=settings.entries,
            unpacked_bytes=settings.unpacked_bytes,
            ratio=settings.ratio,
            seconds=settings.seconds,
            wall_seconds=settings.seconds * wall_times,
            memory_bytes=settings.memory_bytes,
        )

    async def _read(self, job: Job, pieces: AsyncIterator[bytes]) -> list[tuple[bytes, bytes]]:
        settings = self._settings
        async with spooled(
            pieces, most=settings.document_bytes, directory=settings.directory
        ) as document:
            for left in reversed(range(_TRIES)):
                try:
                    return await self._once(job, document)
                except _Crashed as crash:
                    if not left or crash.status in _SPENT:
                        raise self._crashed(crash.status) from crash
                except EOFError as error:
                    if not left:
                        raise _died() from error
        raise _died()

    async def _once(self, job: Job, document: int) -> list[tuple[bytes, bytes]]:
        """Raises _Crashed, EOFError where the template died before, ExtractionRefused, ExtractionFailed."""
        async with self.reader.job(job, document) as answers:
            try:
                async with asyncio.timeout(job.bounds.wall_seconds):
                    return await _gathered(answers, job.bounds.text_bytes * _CHUNKED_TIMES + MIB)
            except TimeoutError as error:
                raise ExtractionFailed(
                    "The document could not be read in time: the gateway's machine is busy.",
                    died=True,
                ) from error
            except EOFError as error:
                # The template died, and took what reads this document with it.
                raise _Crashed(-signal.SIGKILL) from error

    def _crashed(self, status: int) -> ExtractionRefused | ExtractionFailed:
        if status in _SPENT:
            return ExtractionRefused(
                f"Reading the document takes over {self._settings.seconds:g} seconds of the processor, "
                "which is the limit."
            )
        if status in _KILLED:
            return ExtractionFailed(
                "The document could not be read: what reads it was killed twice.", died=True
            )
        most = self._settings.memory_bytes // MIB
        return ExtractionRefused(
            f"The document cannot be read: it is damaged, or takes over {most} MiB of memory, which is the "
            "limit. The process that read it crashed twice."
        )


def _died() -> ExtractionFailed:
    return ExtractionFailed(
        "The document could not be read: the process that reads documents died."
    )


@asynccontextmanager
async def _turn(free: asyncio.Semaphore, seconds: float) -> AsyncIterator[None]:
    """Have a turn; raises ExtractionFailed when it does not come in time."""
    try:
        async with asyncio.timeout(seconds):
            await free.acquire()
    except TimeoutError as error:
        raise ExtractionFailed(
            "The document could not be read: too many others are. Please try again later."
        ) from error
    try:
        yield
    finally:
        free.release()


async def _gathered(answers: Answers, most: int) -> list[tuple[bytes, bytes]]:
    """Return the frames of text or chunks of a document that was read to its end."""
    frames: list[tuple[bytes, bytes]] = []
    try:
        while True:
            kind, payload = await answers.next()
            if kind == wire.DONE and frames:
                return frames
            if kind == wire.REFUSED:
                why = wire.refusal_of(payload)
                raise ExtractionRefused(why.message, code=why.code)
            if kind == wire.ENDED:
                raise _Crashed(wire.status_of(payload))
            most -= len(payload) + wire.HEAD.size
            if kind not in (wire.TEXT, wire.CHUNK) or most < 0:
                raise ValueError("not what a reader says")
            frames.append((kind, payload))
    except (ValueError, msgspec.MsgspecError) as error:
        # What reads foreign bytes may have become their author's.
        raise ExtractionRefused("The document cannot be read: it is damaged.") from error


@asynccontextmanager
async def open_extraction(settings: ExtractionSettings) -> AsyncIterator[Documents]:
    """Yield what reads documents; its child process is started with the first, and ended on exit."""
    documents = Documents(settings)
    try:
        yield documents
    finally:
        await documents.reader.close()
