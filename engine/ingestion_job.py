"""One file on its way into the index."""

from __future__ import annotations

import logging

import msgspec

from engine.errors import (
    EmbeddingFailed,
    EngineError,
    ExtractionRefused,
    LeaseLost,
    NotFound,
)
from engine.files import Files
from engine.indexing import IndexingParts, put_in
from engine.ports import Extraction, IngestionClaim, IngestionErrorCode

_log = logging.getLogger(__name__)

# Seconds until a file is tried again: twice as long each time.
_FIRST_WAIT = 1.0
_LONGEST_WAIT = 60.0


class IngestionParts(msgspec.Struct, frozen=True, kw_only=True):
    """What files are ingested with."""

    files: Files
    extraction: Extraction
    indexing: IndexingParts


class IngestionJob:
    """Ingests a file that was claimed; at the last of so many `attempts` nothing is put back."""

    def __init__(self, parts: IngestionParts, claim: IngestionClaim, *, attempts: int) -> None:
        self._parts = parts
        self._store = parts.indexing.store
        self._claim = claim
        self._attempts = attempts

    async def run(self) -> None:
        """Bring the file to its end, or put it back; raises StorageUnavailable where neither can be."""
        try:
            if self._claim.attempts > self._attempts:
                # The worker of its last attempt died.
                await self._fail("server_error", f"Given up after {self._attempts} attempts.")
            else:
                await self._to_its_end()
        except LeaseLost:
            # Taken over, cancelled or detached: then what the index has of it is removed (`removals`).
            return

    async def _to_its_end(self) -> None:
        try:
            await self._ingest()
            await self._store.finish_ingestion(self._claim.lease, None)
        except LeaseLost:
            raise
        except (ExtractionRefused, NotFound) as error:
            await self._fail(_refusal(error), error.message)
        except EngineError as error:
            passing = not isinstance(error, EmbeddingFailed) or error.passing
            await self._try_later(error.message, passing=passing)
        except Exception:
            _log.exception("the ingestion of %s broke", self._claim.file_id)
            await self._try_later("The gateway failed; see its log.", passing=True)

    async def _ingest(self) -> None:
        if not self._claim.chunked:
            await self._cut()
        tenant, attachment = self._claim.lease.tenant, self._claim.lease.attachment
        await put_in(self._parts.indexing, tenant, self._claim.store, attachment)

    async def _cut(self) -> None:
        """Write the file's text in chunks; a batch at a time, so that no statement is large."""
        claim, batch = self._claim, self._parts.indexing.batch
        file, pieces = await self._parts.files.open(claim.lease.tenant, claim.file_id)
        chunks = await self._parts.extraction.chunks(file.filename, pieces, claim.chunking)
        for first in range(0, len(chunks), batch):
            last = first + batch >= len(chunks)
            some = chunks[first : first + batch]
            await self._store.store_chunks(claim.lease, first, some, last=last)

    async def _try_later(self, message: str, *, passing: bool) -> None:
        if not passing or self._claim.attempts >= self._attempts:
            await self._fail("server_error", message)
            return
        seconds = min(_FIRST_WAIT * 2 ** (self._claim.attempts - 1), _LONGEST_WAIT)
        _log.warning("%s is ingested again in %.0f s: %s", self._claim.file_id, seconds, message)
        await self._store.put_back_ingestion(self._claim.lease, seconds=seconds)

    async def _fail(self, code: IngestionErrorCode, message: str) -> None:
        _log.info("%s could not be ingested (%s)", self._claim.file_id, code)
        await self._store.finish_ingestion(self._claim.lease, (code, message))


def _refusal(error: EngineError) -> IngestionErrorCode:
    return "unsupported_file" if error.code == "unsupported_file" else "invalid_file"
