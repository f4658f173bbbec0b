"""`holdfast reindex`: the vector index is made again from the chunks in the database."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import TextIO

from engine.reindexing import Progress, Reindexed, reindex
from extproc.retrieval import indexing_parts, open_retrieval
from extproc.settings import Settings
from extproc.settings_source import SettingsError
from storage.postgres.pool import open_pool
from storage.postgres.store import PostgresStore

_WIDTH = 40
# Seconds between two lines where nobody looks at a terminal.
_LINES = 10.0


async def run(
    settings: Settings, conninfo: str, tenant: str | None, *, clear: bool, progress: Progress
) -> Reindexed:
    """Make the index again, of one tenant or of all; `clear` empties it first, so that all is put in.

    Raises SettingsError where there is no embedding model or no index, and EngineError.
    """
    timeout = settings.postgres.timeout_seconds
    async with (
        open_pool(conninfo, min_size=1, max_size=4, timeout=timeout) as pool,
        open_retrieval(settings) as means,
    ):
        parts = indexing_parts(PostgresStore(pool), means, batch=settings.retrieval.batch)
        if parts is None:
            raise SettingsError([means.problem])
        if clear:
            await parts.index.clear()
        return await reindex(parts, tenant, progress)


def shown_progress(out: TextIO, clock: Callable[[], float] = time.monotonic) -> Progress:
    """Return what shows how far it is: a bar on a terminal, otherwise a line now and then."""
    if out.isatty():
        return _bar(out)
    last = -_LINES

    def line(done: int, total: int) -> None:
        nonlocal last
        if clock() - last >= _LINES or done == total:
            last = clock()
            out.write(f"{done} of {total} files\n")
            out.flush()

    return line


def _bar(out: TextIO) -> Progress:
    def bar(done: int, total: int) -> None:
        full = _WIDTH * done // total if total else _WIDTH
        out.write(f"\r[{'#' * full:<{_WIDTH}}] {done} of {total} files")
        out.write("\n" if done == total else "")
        out.flush()

    return bar


def on_standard_error() -> Progress:
    """Return what shows it to whoever started the command."""
    return shown_progress(sys.stderr)
