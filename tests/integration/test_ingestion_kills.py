"""Workers killed with SIGKILL while they ingest: each file comes to an end, and each chunk is there once."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from functools import partial

import openai
import pytest
import pytest_asyncio

from storage.postgres.embedded import EmbeddedPostgres
from tests.support.embeddings_server import EmbeddingsServer
from tests.support.fix_postgres import create_database
from tests.support.retrieving import retrieving_stack
from tests.support.scripted_model import ScriptedModel
from tests.support.stack import CLIENT_KEY, Stack, eventually

FILES, DAMAGED, KILLS = 500, 10, 8
WORDS = 250
PATIENCE = 120.0

_ENDED = "SELECT count(*) FROM attachments WHERE store = %s AND status <> 'in_progress'"
_STATUSES = "SELECT file_id, status, error_code FROM attachments WHERE store = %s"
_TEXTS = """
    SELECT a.file_id, c.number, convert_from(c.text, 'UTF8')
    FROM chunks c JOIN attachments a ON (a.tenant, a.id) = (c.tenant, c.attachment)
    WHERE a.store = %s ORDER BY 1, 2
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
    """P4: completed, or failed with a reason; no chunk twice, in the database and in the index."""
    async with openai.AsyncOpenAI(
        base_url=f"{fragile.url}/v1", api_key=CLIENT_KEY, max_retries=3, timeout=60
    ) as client:
        texts = await _uploaded(client)
        store = (await client.vector_stores.create(name="fragile")).id
        await client.vector_stores.file_batches.create(
            store,
            file_ids=[*texts],
            chunking_strategy={
                "type": "static",
                "static": {"max_chunk_size_tokens": 100, "chunk_overlap_tokens": 0},
            },
        )
    begun = time.monotonic()
    await _killing(fragile, store)
    record_property("seconds for 500 files and their kills", round(time.monotonic() - begun, 1))

    statuses = await fragile.sql(_STATUSES, store)
    ends = Counter((status, code) for _, status, code in statuses)
    assert ends == {
        ("completed", None): FILES - DAMAGED,
        ("failed", "invalid_file"): DAMAGED,
    }
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


async def _killing(stack: Stack, store: str) -> None:
    """Kill one worker or the other whenever some more files have ended, until all have."""
    randomly = random.Random(20261121)

    async def ended(count: int) -> bool:
        [[done]] = await stack.sql(_ENDED, store)
        return int(done) >= count

    for kill in range(KILLS):
        moment = int((kill + randomly.random()) * FILES / (KILLS + 1))
        await eventually(partial(ended, moment), timeout=PATIENCE)
        index = randomly.randint(0, 1)
        victim = stack.worker(index)
        os.kill(victim, signal.SIGKILL)
        await stack.replaced(index, victim)
    await eventually(partial(ended, FILES), timeout=PATIENCE)
