"""The vector index of `holdfast up`: a private Milvus Lite, where the settings name none."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from contextlib import AsyncExitStack
from functools import partial
from importlib.util import find_spec
from pathlib import Path

from extproc.settings import Settings
from extproc.up import probes
from extproc.up.processes import Command, StartFailed, running
from extproc.up.terminal import Report

# So much of a collection is written to a file at once, some thousand chunks; what is not yet in one is
# searched row by row, and Lite's own limit is 128 MiB.
_MEMORY = {"MILVUS_LITE_MEMTABLE_MEMORY_LIMIT_BYTES": str(16 << 20)}
# It reads what it has before it listens: a few seconds for a hundred thousand chunks.
_READY_SECONDS = 180.0
# Time to write what is only in its log: it would otherwise be read again at the next start.
_STOP_SECONDS = 15.0


async def with_index(
    settings: Settings, parts: AsyncExitStack, report: Report, environment: Mapping[str, str]
) -> Settings:
    """Return the settings with an index that is ready; raises StartFailed.

    `parts` keeps what was started here; `environment` is for the child, which needs no secret.
    """
    # Imported here because the supervisor of `serve` needs no database.
    from engine.errors import EngineError
    from extproc.index import migrate_index

    if settings.index.kind is not None:
        try:
            await migrate_index(settings, report)
        except EngineError as error:
            raise StartFailed(str(error)) from error
        return settings
    if find_spec("milvus_lite") is None:
        report("No vector index: the package milvus-lite is not installed.")
        return settings
    directory, socket = settings.data_dir / "milvus", settings.index_socket
    report(f"Starting a private Milvus Lite in {directory} ...")
    await parts.enter_async_context(running([lite_command(directory, socket, environment)], report))
    return settings.having(index={"kind": "milvus", "url": f"unix:{socket.absolute()}"})


def lite_command(directory: Path, socket: Path, environment: Mapping[str, str]) -> Command:
    """Return how Milvus Lite is run over a directory, reached by a socket."""
    return Command(
        name="milvus-lite",
        argv=[
            *(sys.executable, "-m", "extproc.milvus_lite"),
            *("--data", str(directory), "--socket", str(socket)),
        ],
        environment={**_MEMORY, **environment, "PYTHONUNBUFFERED": "1"},
        is_ready=partial(probes.accepts, socket),
        ready_seconds=_READY_SECONDS,
        stop_seconds=_STOP_SECONDS,
    )
