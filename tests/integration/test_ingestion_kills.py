"""Workers killed with SIGKILL while they ingest: each file comes to an end, and each chunk is there once.

What was detached or cancelled in mid-file leaves nothing behind.
"""

from __future__ import annotations

import asyncio
import os
import random
import signal
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from functools import partial

import openai
import pytest
import pytest_asyncio
from openai.types import StaticFileChunkingStrategyObjectParam

from storage.postgres.embedded import EmbeddedPostgres
from tests.support.embeddings_server import EmbeddingsServer
from tests.support.fix_postgres import create_database
from tests.support.retrieving import retrieving_stack
from tests.support.scripted_model import ScriptedModel
from tests.support.stack import CLIENT_KEY, Stack, eventually

FILES, CANCELLED, DAMAGED, KILLS = 500, 100, 10, 8
WORDS = 250
PATIENCE = 120.0
STRATEGY: StaticFileChunkingStrategyObjectParam = {
    "type": "static",
    "static": {"max_chunk_size_tokens": 100, "chunk_overlap_tokens": 0},
}

_LEFT = "SELECT count(*) FROM attachments WHERE store = %s AND status = 'in_progress'"
_AT_WORK = """
    SELECT a.file_id FROM ingestions i JOIN attachments a ON (a.tenant, a.id) = (i.tenant, i.attachment)
    WHERE a.store = %s AND i.owner IS NOT NULL ORDER BY 1
"""
_TO_REMOVE = "SELECT count(*) FROM removals"
_STATUSES = "SELECT file_id, status, error_code FROM attachments WHERE store = %s"
_TEXTS = """
    SELECT a.file_id, c.number, convert_from(c.text, 'UTF8')
    FROM chunks c JOIN attachments a ON (a.tenant, a.id) = (c.tenant, c.attachment)
    WHERE a.store = %s AND a.status = 'completed' ORDER BY 1, 2
"""
_INDEXED = """
    SELECT a.file_id, i.number
    FROM {table} i LEFT JOIN attachments a ON (a.tenant, a.id) = (i.tenant, i.attachment)
    WHERE i.store = %s ORDER BY 1, 2
"""


@pytest_asyncio.fixture(scope="module")
async def fragile(postgres_server: EmbeddedPostgres, stage: ScriptedModel) -> AsyncIterator[Stack]:
    """Two workers whose leases end soon after them."""
    async with (
        EmbeddingsServer() as server,
        retrieving_stack(
            stage,
            await create_database(postgres_server),
            server,
            retrieval={"lease_seconds": 3, "batch": 2, "concurrency": 4},
        ) as running,
    ):
        yield running


def a_text(number: int) -> str:
    """Return a text of several chunks, no two of which have a line in common."""
    return "\n".join(f"file {number} line {line} of all its lines" for line in range(WORDS // 8))


@pytest.mark.timeout(400)
async def test_500_files_survive_kills(
    fragile: Stack, record_property: Callable[[str, object], None]
) -> None:
    """P4, X1: completed, or failed with a reason; no chunk twice, in the database and in the index.

    Of what was detached or cancelled under the workers, none is left.
    """
    async with openai.AsyncOpenAI(
        base_url=f"{fragile.url}/v1", api_key=CLIENT_KEY, max_retries=5, timeout=60
    ) as client:
        texts = await _uploaded(client)
        store = (await client.vector_stores.create(name="fragile")).id
        first, last = [*texts][:-CANCELLED], [*texts][-CANCELLED:]
        await client.vector_stores.file_batches.create(
            store, file_ids=first, chunking_strategy=STRATEGY
        )
        begun = time.monotonic()
        detached = await _killing(fragile, client, store, last)
    record_property("seconds for 500 files and their kills", round(time.monotonic() - begun, 1))
    record_property("files detached at work", len(detached))

    statuses = await fragile.sql(_STATUSES, store)
    assert {file_id for file_id, _, _ in statuses} == texts.keys() - detached
    ends = Counter((status, code) for _, status, code in statuses)
    assert ends.keys() == {("completed", None), ("failed", "invalid_file"), ("cancelled", None)}
    assert ends["failed", "invalid_file"] >= DAMAGED - len(detached)
    assert 0 < ends["cancelled", None] <= CANCELLED
    chunks = await fragile.sql(_TEXTS, store)
    places = [(file_id, number) for file_id, number, _ in chunks]
    for file_id, status, _ in statuses:
        kept = [(number, text) for each, number, text in chunks if each == file_id]
        assert [number for number, _ in kept] == list(range(len(kept)))
        # Chunks begin and end without blanks.
        whole = "".join("".join(text.split()) for _, text in kept)
        assert whole == ("".join(texts[file_id].split()) if status == "completed" else "")
    for table in ("index_vectors", "index_words"):
        assert await fragile.sql(_INDEXED.format(table=table), store) == places


async def _uploaded(client: openai.AsyncOpenAI) -> dict[str, str]:
    """Upload the files, some of them damaged; return their texts by id."""
    room = asyncio.Semaphore(16)

    async def upload(number: int) -> tuple[str, str]:
        damaged = number < DAMAGED
        text, name = a_text(number), "damaged.docx" if damaged else f"{number}.txt"
        data = b"PK\x03\x04" + text.encode() if damaged else text.encode()
        async with room:
            file = await client.files.create(file=(name, data), purpose="assistants")
        return file.id, text

    return dict(await asyncio.gather(*(upload(number) for number in range(FILES))))


async def _killing(
    stack: Stack, client: openai.AsyncOpenAI, store: str, last: list[str]
) -> set[str]:
    """Kill one worker or the other whenever some more files have ended, until all have.

    Before each kill some that are at work are detached; before the last one a batch of the `last` is begun,
    and cancelled. Returns those that were detached. What was noted to be removed is removed then.
    """
    randomly = random.Random(20261121)
    detached: set[str] = set()

    async def ended(count: int) -> bool:
        [[left]] = await stack.sql(_LEFT, store)
        return FILES - CANCELLED - int(left) >= count

    async def at_work() -> bool:
        return bool(await stack.sql(_AT_WORK, store))

    async def removed() -> bool:
        return await stack.sql(_TO_REMOVE) == [(0,)]

    for kill in range(KILLS):
        moment = int((kill + randomly.random()) * (FILES - CANCELLED) / (KILLS + 1))
        await eventually(partial(ended, moment), timeout=PATIENCE)
        for [file_id] in (await stack.sql(_AT_WORK, store))[:3]:
            # What a worker did that was killed before it could say so is gone at the next attempt.
            with suppress(openai.NotFoundError):
                await client.vector_stores.files.delete(file_id, vector_store_id=store)
            detached.add(file_id)
        if kill == KILLS - 1:
            batch = await client.vector_stores.file_batches.create(
                store, file_ids=last, chunking_strategy=STRATEGY
            )
            await eventually(at_work, timeout=PATIENCE)
            await client.vector_stores.file_batches.cancel(batch.id, vector_store_id=store)
        index = randomly.randint(0, 1)
        victim = stack.worker(index)
        os.kill(victim, signal.SIGKILL)
        await stack.replaced(index, victim)
    await eventually(partial(ended, FILES - CANCELLED), timeout=PATIENCE)
    await eventually(removed, timeout=PATIENCE)
    return detached
