"""One file on its way into the index."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from typing import Literal

import msgspec

from engine.errors import (
    EmbeddingFailed,
    EngineError,
    ExtractionFailed,
    ExtractionRefused,
    LeaseLost,
    NotFound,
    StorageUnavailable,
)
from engine.files import Files
from engine.indexing import IndexingParts, put_in_whole, take_out
from engine.ports import Extraction, IngestionClaim, IngestionErrorCode
from engine.ports.meters import NO_METERS, IngestionEnd, Meters
from engine.undisturbed import undisturbed

_log = logging.getLogger(__name__)

# Seconds until a file is tried again that was at work when its worker, or what read it, died.
_FIRST_WAIT = 1.0
_LONGEST_WAIT = 600.0
# A server that is away is asked again after a share of the file's age, within bounds.
_SHARE_OF_AGE = 0.125
_LONGEST_ABSENCE = 60.0
# Between two attempts to tell the store what became of a file.
_STORE_PAUSE = 1.0


class IngestionParts(msgspec.Struct, frozen=True, kw_only=True):
    """What files are ingested with; `clock` is that by which the store dates attachments."""

    files: Files
    extraction: Extraction
    indexing: IndexingParts
    clock: Callable[[], float] = time.time
    meters: Meters = NO_METERS


class Endurance(msgspec.Struct, frozen=True, kw_only=True):
    """What is borne before a file has failed that may be good.

    `attempts` counts those at which something died or broke. A server that is away uses up none: it is
    waited for until the file was attached for `patience` seconds.
    """

    attempts: int = 10
    patience: float = 86_400.0


class _Fault(msgspec.Struct, frozen=True):
    """Why a file was not ingested, and whose fault it is.

    The file's: it will never be. A server's: that says nothing of the file. Unknown: something died or broke.
    """

    message: str
    of: Literal["file", "server", "unknown"]
    code: IngestionErrorCode = "server_error"


class IngestionJob:
    """Ingests a file that was claimed."""

    def __init__(self, parts: IngestionParts, claim: IngestionClaim, endurance: Endurance) -> None:
        self._parts = parts
        self._store = parts.indexing.store
        self._claim = claim
        self._endurance = endurance
        self._indexing = False
        self._count = 0
        self._began = time.monotonic()
        self.ending = False
        """True while the store is told of its end and behind that: the lease may be gone, and be no loss."""

    async def run(self) -> None:
        """Bring the file to its end, or put it back; whichever it is, the store is told of it."""
        try:
            await self._told(await self._attempted())
        except LeaseLost:
            await undisturbed(self._give_up())
        except asyncio.CancelledError:
            await undisturbed(self._give_up())
            raise

    async def _attempted(self) -> _Fault | None:
        """Ingest the file; return what went wrong. Raises LeaseLost."""
        if self._claim.attempts > self._endurance.attempts:
            # The worker of its last attempt died.
            return _Fault(f"Given up after {self._endurance.attempts} attempts.", "unknown")
        try:
            await self._ingest()
        except LeaseLost:
            raise
        except EngineError as error:
            _log.info("%s was not ingested: %s", self._claim.file_id, _kind(error))
            return _fault_of(error)
        except Exception:
            _log.exception("the ingestion of %s broke", self._claim.file_id)
            return _Fault("The gateway failed; see its log.", "unknown")
        return None

    async def _ingest(self) -> None:
        if not self._claim.chunked:
            await self._cut()
        self._indexing = True
        self._count = await put_in_whole(self._parts.indexing, *self._place)

    async def _cut(self) -> None:
        """Write the file's text in chunks; a batch at a time, so that no statement is large."""
        claim, batch = self._claim, self._parts.indexing.batch
        file, pieces = await self._parts.files.open(claim.lease.tenant, claim.file_id)
        chunks = await self._parts.extraction.chunks(file.filename, pieces, claim.chunking)
        for first in range(0, len(chunks), batch):
            last = first + batch >= len(chunks)
            some = chunks[first : first + batch]
            await self._store.store_chunks(claim.lease, first, some, last=last)

    async def _told(self, fault: _Fault | None) -> None:
        """Tell the store what became of the file, as soon as it can be told; raises LeaseLost."""
        while True:
            self.ending = True
            try:
                return await (self._complete() if fault is None else self._judge(fault))
            except StorageUnavailable as error:
                self.ending = False
                # The lease may run out meanwhile: then somebody goes on with the file.
                _log.warning("the ingestion of %s waits: %s", self._claim.file_id, _kind(error))
                await asyncio.sleep(_STORE_PAUSE)

    async def _complete(self) -> None:
        await self._store.finish_ingestion(self._claim.lease, None)
        self._tell("completed")
        # An index that is made again may have been emptied since we looked: who empties it goes by what
        # is completed, and may have been here before that was so.
        try:
            await put_in_whole(self._parts.indexing, *self._place, is_in=self._count)
        except EngineError as error:
            _log.warning("%s may not be in the index: %s", self._claim.file_id, _kind(error))
        await self._leave_nothing()

    async def _judge(self, fault: _Fault) -> None:
        pause = await self._pause(fault)
        if pause is None:
            await self._fail(fault)
            return
        _log.info("%s is ingested again in %.0f s", self._claim.file_id, pause)
        await self._store.put_back_ingestion(
            self._claim.lease, seconds=pause, counts=fault.of == "unknown"
        )

    async def _pause(self, fault: _Fault) -> float | None:
        """Return after how many seconds the file is tried again, None where it is not."""
        attempts, most = self._claim.attempts, self._endurance
        if fault.of == "unknown" and attempts < most.attempts:
            return min(_FIRST_WAIT * 2.0 ** (attempts - 1), _LONGEST_WAIT)
        if fault.of == "server" and (age := await self._age()) < most.patience:
            return min(max(_FIRST_WAIT, age * _SHARE_OF_AGE), _LONGEST_ABSENCE)
        return None

    async def _fail(self, fault: _Fault) -> None:
        _log.info("%s could not be ingested (%s)", self._claim.file_id, fault.code)
        await self._store.finish_ingestion(self._claim.lease, (fault.code, fault.message))
        self._tell("failed")
        await self._leave_nothing()

    async def _give_up(self) -> None:
        """Stop in the middle; it counts as an end where nobody else goes on."""
        tenant, store, attachment = self._place
        try:
            found = await self._store.get_attachment(tenant, store, self._claim.file_id)
            if found is None or found.id != attachment or found.status == "cancelled":
                self._tell("cancelled")
        except EngineError as error:
            _log.warning("what became of %s is not known: %s", attachment, error.kind)
        await self._leave_nothing()

    def _tell(self, end: IngestionEnd) -> None:
        self._parts.meters.ingested(end, self._count, time.monotonic() - self._began)

    async def _leave_nothing(self) -> None:
        """Remove from the index what we put there of a file that nobody wants there any more (rule X1).

        The sweep of `removals` may have been there before the last of it. It comes again for what is noted
        there still; so a failure is only told of.
        """
        if not self._indexing:
            return
        tenant, store, attachment = self._place
        try:
            found = await self._store.get_attachment(tenant, store, self._claim.file_id)
            kept = found is not None and found.id == attachment
            if found is None or not kept or found.status in ("failed", "cancelled"):
                await take_out(self._parts.indexing.index, tenant, store, attachment)
        except EngineError as error:
            _log.warning("%s may be left in the index: %s", attachment, _kind(error))

    async def _age(self) -> float:
        """Return for how many seconds the file has been attached; raises LeaseLost if it is no longer."""
        tenant, store, attachment = self._place
        found = await self._store.get_attachment(tenant, store, self._claim.file_id)
        if found is None or found.id != attachment:
            raise LeaseLost(f"{attachment} is attached no longer.")
        return self._parts.clock() - found.created_at

    @property
    def _place(self) -> tuple[str, str, str]:
        lease = self._claim.lease
        return lease.tenant, self._claim.store, lease.attachment


def _fault_of(error: EngineError) -> _Fault:
    match error:
        case ExtractionRefused(code="unsupported_file"):
            return _Fault(error.message, "file", "unsupported_file")
        case ExtractionRefused() | NotFound() | EmbeddingFailed(refused=True):
            return _Fault(error.message, "file", "invalid_file")
        case ExtractionFailed(died=True):
            return _Fault(error.message, "unknown")
        case _:
            return _Fault(error.message, "server")


def _kind(error: EngineError) -> str:
    """Return what a log may say of an error: messages of servers repeat what they were sent (rule P5)."""
    return f"{type(error).__name__} ({error.code})"
