"""What it takes until files can be found: uploaded, read, cut, embedded, stored and indexed, as users do it.

One worker behind Envoy with the local embedding model, on each of the indexes that `holdfast up` can have.
"""

from __future__ import annotations

import asyncio
import random
import tempfile
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import psycopg

from extproc.embedding.opening import with_local_embeddings
from extproc.settings import Settings
from extproc.up.stack import whole_stack
from storage.postgres.embedded import embedded_postgres

_WORDS = tuple(f"{first}{second}" for first in "bdfgklmnprst" for second in ("ale", "ino", "ura"))
_FILE_WORDS = 3_000
_POLL_SECONDS = 0.1
_INDEXES: Mapping[str, Mapping[str, object]] = {"Lite": {}, "pgvector": {"kind": "pgvector"}}


async def run(files: int) -> None:
    """Print chunks a second for so many files of 3,000 words each."""
    print(f"\n{files} files of {_FILE_WORDS:,} words, the local embedding model, one worker\n")
    print("| index | files | chunks | seconds | chunks a second |\n|---|---|---|---|---|")
    for name, index in _INDEXES.items():
        async with _stack(index) as (url, database):
            seconds = await _ingested(url, files)
            chunks = await _chunks(database)
            print(f"| {name} | {files} | {chunks} | {seconds:.1f} | {chunks / seconds:.0f} |")


@asynccontextmanager
async def _stack(index: Mapping[str, object]) -> AsyncIterator[tuple[str, str]]:
    with tempfile.TemporaryDirectory(prefix="hf-bench-") as name:
        directory = Path(name)
        async with embedded_postgres(directory / "postgres") as database:
            settings = Settings(data_dir=directory).having(
                listen={"port": 0},
                postgres={"url": database.conninfo},
                index=index,
                metrics={"enabled": False},
            )
            async with whole_stack(with_local_embeddings(settings), lambda _line: None) as url:
                yield url, database.conninfo


async def _ingested(url: str, files: int) -> float:
    """Return the seconds from the attachment of all files until all are completed."""
    source = random.Random(7)
    async with aiohttp.ClientSession(f"{url}/v1/") as session:
        # One more: with the first text the model is loaded.
        ids = [await _uploaded(session, source, number) for number in range(files + 1)]
        await _attached(session, ids[:1])
        began = time.monotonic()
        await _attached(session, ids[1:])
        return time.monotonic() - began


async def _uploaded(session: aiohttp.ClientSession, source: random.Random, number: int) -> str:
    words = (source.choice(_WORDS) for _ in range(_FILE_WORDS))
    form = aiohttp.FormData({"purpose": "assistants"})
    form.add_field("file", " ".join(words).encode(), filename=f"{number}.txt")
    async with session.post("files", data=form) as answer:
        answer.raise_for_status()
        return str((await answer.json())["id"])


async def _attached(session: aiohttp.ClientSession, ids: list[str]) -> None:
    async with session.post("vector_stores", json={"file_ids": ids}) as answer:
        answer.raise_for_status()
        store = (await answer.json())["id"]
    while True:
        async with session.get(f"vector_stores/{store}") as answer:
            counts = (await answer.json())["file_counts"]
        if counts["failed"]:
            raise RuntimeError(f"{counts['failed']} files were not ingested")
        if counts["completed"] == len(ids):
            return
        await asyncio.sleep(_POLL_SECONDS)


async def _chunks(database: str) -> int:
    """Return how many chunks there are of all but the file with which the model was loaded."""
    async with await psycopg.AsyncConnection.connect(database) as connection:
        query = (
            "SELECT count(*) FROM chunks WHERE attachment <> "
            "(SELECT id FROM attachments ORDER BY created_at LIMIT 1)"
        )
        row = await (await connection.execute(query)).fetchone()
    assert row is not None
    return int(row[0])
