"""Milvus Lite killed with SIGKILL while files are ingested and searched: back, and nothing is missing."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import openai
import pytest_asyncio

from storage.postgres.embedded import EmbeddedPostgres
from tests.support.embeddings_server import EmbeddingsServer
from tests.support.fix_postgres import create_database
from tests.support.retrieving import killed_lite, reindexed, retrieving_stack
from tests.support.scripted_model import ScriptedModel
from tests.support.stack import CLIENT_KEY, Stack, eventually

FILES, KILLS, READERS = 40, 3, 3
PATIENCE = 120.0
SMALL: Any = {"type": "static", "static": {"max_chunk_size_tokens": 100, "chunk_overlap_tokens": 0}}
_COMPLETED = "SELECT file_id FROM attachments WHERE store = %s AND status = 'completed'"
_NOT_COMPLETED = """
    SELECT file_id, status, error_code, convert_from(error, 'UTF8') FROM attachments
    WHERE store = %s AND status <> 'completed'
"""
_IN_PROGRESS = "SELECT 1 FROM attachments WHERE store = %s AND status = 'in_progress'"
_CHUNKS = """
    SELECT a.file_id, count(*) FROM chunks c
    JOIN attachments a ON (a.tenant, a.id) = (c.tenant, c.attachment)
    WHERE a.store = %s GROUP BY 1
"""


@pytest_asyncio.fixture(scope="module")
async def server() -> AsyncIterator[EmbeddingsServer]:
    """What makes vectors."""
    async with EmbeddingsServer() as running:
        yield running


@pytest_asyncio.fixture(scope="module")
async def stack(
    postgres_server: EmbeddedPostgres, stage: ScriptedModel, server: EmbeddingsServer
) -> AsyncIterator[Stack]:
    """What `holdfast up` runs: the index is a private Milvus Lite."""
    database = await create_database(postgres_server)
    async with retrieving_stack(
        stage, database, server, index={"kind": None}, retrieval={"lease_seconds": 3, "batch": 2}
    ) as running:
        yield running


class Reader:
    """Searches again and again; `refused` are the status and the code of what was no answer."""

    def __init__(self, client: openai.AsyncOpenAI, store: str) -> None:
        self._client = client
        self._store = store
        self.answered = 0
        self.refused: list[tuple[int, str | None]] = []

    async def run(self) -> None:
        """Search until it is cancelled."""
        while True:
            try:
                await self._client.vector_stores.search(self._store, query="line of a file")
                self.answered += 1
            except openai.APIStatusError as error:
                self.refused.append((error.status_code, error.code))


@asynccontextmanager
async def reading(client: openai.AsyncOpenAI, store: str) -> AsyncIterator[Reader]:
    """Some readers of a store, for so long; they do not try again."""
    reader = Reader(client.with_options(max_retries=0), store)
    tasks = [asyncio.create_task(reader.run()) for _ in range(READERS)]
    try:
        yield reader
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def test_nothing_that_was_completed_is_missing(
    stack: Stack,
    server: EmbeddingsServer,
    record_property: Callable[[str, object], None],
) -> None:
    """T8, P4: killed four times; every file ends completed, each chunk is there once and is found."""
    async with openai.AsyncOpenAI(
        base_url=f"{stack.url}/v1", api_key=CLIENT_KEY, max_retries=8, timeout=60
    ) as client:
        files = await asyncio.gather(*(_uploaded(client, number) for number in range(FILES)))
        store = (await client.vector_stores.create()).id
        async with reading(client, store) as reader:
            attached: Any = [
                {"file_id": file, "attributes": {"n": number}, "chunking_strategy": SMALL}
                for number, file in enumerate(files)
            ]
            await client.vector_stores.file_batches.create(store, files=attached)
            for kill in range(KILLS):
                await eventually(partial(_completed, stack, store, kill * 12 + 6), timeout=PATIENCE)
                before = {file for [file] in await stack.sql(_COMPLETED, store)}
                await killed_lite(stack)
                for file in sorted(before)[:3]:
                    await _is_whole(stack, client, store, file, files.index(file))

            async def ended() -> bool:
                return not await stack.sql(_IN_PROGRESS, store)

            await eventually(ended, timeout=PATIENCE)
        record_property("searches answered", reader.answered)
        record_property("searches refused while Lite was away", len(reader.refused))
        assert reader.answered > 0
        assert {*reader.refused} == {(503, "vector_index_unavailable")}
        assert await stack.sql(_NOT_COMPLETED, store) == []
        for number, file in enumerate(files):
            await _is_whole(stack, client, store, file, number)
        told = await reindexed(stack, server)
        assert told == (
            0,
            f"0 of {FILES} file(s) put into the index; the other {FILES} were there.",
        )


async def _uploaded(client: openai.AsyncOpenAI, number: int) -> str:
    content = "\n".join(f"file {number} line {line} of a file" for line in range(30))
    file = await client.files.create(file=(f"{number}.txt", content.encode()), purpose="assistants")
    return file.id


async def _completed(stack: Stack, store: str, count: int) -> bool:
    return len(await stack.sql(_COMPLETED, store)) >= count


async def _is_whole(
    stack: Stack, client: openai.AsyncOpenAI, store: str, file: str, number: int
) -> None:
    """Check that each chunk of a file is found, once."""
    kept = dict(await stack.sql(_CHUNKS, store))
    mine: Any = {"type": "eq", "key": "n", "value": number}
    for ranker in ("none", "auto"):
        options: Any = {"ranker": ranker}
        page = await client.vector_stores.search(
            store,
            query=f"file {number} line",
            filters=mine,
            max_num_results=50,
            ranking_options=options,
        )
        texts = [result.content[0].text for result in page.data]
        assert {result.file_id for result in page.data} == {file}
        assert len(texts) == len(set(texts)) == kept[file] > 1
