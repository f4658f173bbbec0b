"""The file side of a worker, put together: where bytes are kept, and what fetches files by their URLs."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from engine.attachments import FetchUrl
from engine.ports import BlobStore
from engine.ports.meters import NO_METERS, Meters
from extproc.outbound.fetch import Fetcher
from extproc.outbound.policy import OutboundPolicy
from extproc.outbound.transport import GuardedTransport
from extproc.settings_files import Files
from extproc.settings_source import SettingsError
from storage.blobs.store import open_blobs


def file_store(files: Files, meters: Meters = NO_METERS) -> BlobStore:
    """Return the store of files; raises SettingsError where it cannot be used."""
    try:
        return open_blobs(
            files.url,
            files.directory,
            environ=os.environ,
            patience=files.timeout_seconds,
            meters=meters,
        )
    except (OSError, ValueError) as error:
        raise SettingsError([f"files: the file store cannot be opened: {error}"]) from error


@asynccontextmanager
async def url_fetcher(files: Files, policy: OutboundPolicy) -> AsyncIterator[FetchUrl]:
    """Yield what fetches files that requests name by their URLs; its connections are closed on exit."""
    transport = GuardedTransport(policy, body_limit=files.input_bytes)
    try:
        yield Fetcher(transport).fetch
    finally:
        await transport.aclose()
