"""What is detached, deleted, expired or cut anew is not found from the next search on (T8)."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping
from typing import Any

import openai
import pytest
import pytest_asyncio

from storage.postgres.embedded import EmbeddedPostgres
from tests.support.embeddings_server import EmbeddingsServer
from tests.support.fix_postgres import create_database
from tests.support.mcp_turns import Turns
from tests.support.replies import call, say, text
from tests.support.retrieving import embedded_by, reindexed, retrieving_stack
from tests.support.scripted_model import ScriptedModel
from tests.support.shelves import INDEXES
from tests.support.stack import CLIENT_KEY, Stack, eventually, running_stack

QUERY = "the river carries a stone"
SMALL: Any = {"type": "static", "static": {"max_chunk_size_tokens": 100, "chunk_overlap_tokens": 0}}
LARGE: Any = {"type": "static", "static": {"max_chunk_size_tokens": 400, "chunk_overlap_tokens": 0}}
LONG = "\n".join(f"{line}: {QUERY} to place {line}" for line in range(60))


@pytest_asyncio.fixture(scope="module")
async def server() -> AsyncIterator[EmbeddingsServer]:
    """What makes vectors."""
    async with EmbeddingsServer() as running:
        yield running


@pytest_asyncio.fixture(scope="module", params=INDEXES)
async def stack(
    request: pytest.FixtureRequest,
    postgres_server: EmbeddedPostgres,
    stage: ScriptedModel,
    server: EmbeddingsServer,
) -> AsyncIterator[Stack]:
    """A stack that retrieves, once with each index."""
    database = await create_database(postgres_server)
    index = INDEXES[request.param]
    async with retrieving_stack(stage, database, server, index=index) as running:
        yield running


@pytest_asyncio.fixture
async def client(stack: Stack) -> AsyncIterator[openai.AsyncOpenAI]:
    """The official SDK."""
    async with a_client(stack) as sdk:
        yield sdk


def a_client(stack: Stack) -> openai.AsyncOpenAI:
    """Return a client of a stack."""
    return openai.AsyncOpenAI(
        base_url=f"{stack.url}/v1", api_key=CLIENT_KEY, max_retries=0, timeout=60
    )


async def shelved(client: openai.AsyncOpenAI, *contents: str) -> tuple[str, list[str]]:
    """Put files into a new store; return its id and theirs when they are ingested."""
    files = [
        (await client.files.create(file=(f"{n}.txt", each.encode()), purpose="assistants")).id
        for n, each in enumerate(contents)
    ]
    store = (await client.vector_stores.create()).id
    batch = await client.vector_stores.file_batches.create_and_poll(
        store, file_ids=files, chunking_strategy=SMALL, poll_interval_ms=100
    )
    assert batch.file_counts.completed == len(files)
    return store, files


async def found(client: openai.AsyncOpenAI, store: str) -> set[str]:
    """Return the ids of the files that any search of a store finds, of whichever worker and ranker."""
    ids: set[str] = set()
    for ranker in ("auto", "none", "auto", "none"):
        options: Any = {"ranker": ranker}
        page = await client.vector_stores.search(
            store, query=QUERY, max_num_results=50, ranking_options=options
        )
        ids |= {result.file_id for result in page.data}
    return ids


async def told_to_the_model(stack: Stack, client: openai.AsyncOpenAI, store: str) -> list[str]:
    """Return what a model is told that searches a store."""
    asks = say(call("file_search", json.dumps({"queries": [QUERY]})))
    turns = Turns(stack, asks, say(text("ok")))
    tool: Any = {"type": "file_search", "vector_store_ids": [store]}
    await client.responses.create(model="m", input="hi", tools=[tool])
    return turns.outputs(1)


async def index_is_rid(stack: Stack, store: str) -> None:
    """Wait until everything of a store that is gone has been taken out of the index."""

    async def forgotten() -> bool:
        return await stack.sql("SELECT 1 FROM removals WHERE store = %s", store) == []

    await eventually(forgotten, timeout=60)


async def test_files_that_go_are_not_found(stack: Stack, client: openai.AsyncOpenAI) -> None:
    """T8: detached from one store it is still in another; deleted, it is in none."""
    store, files = await shelved(client, *(f"{QUERY} {number}" for number in range(4)))
    other = (await client.vector_stores.create(file_ids=files)).id
    for file in files:
        await client.vector_stores.files.poll(file, vector_store_id=other)
    assert await found(client, store) == await found(client, other) == set(files)

    await client.vector_stores.files.delete(files[0], vector_store_id=store)
    assert await found(client, store) == set(files[1:])
    assert await found(client, other) == set(files)
    await client.files.delete(files[1])
    assert await found(client, store) == set(files[2:])
    assert await found(client, other) == {files[0], *files[2:]}
    [told] = await told_to_the_model(stack, client, store)
    assert [file in told for file in files] == [False, False, True, True]

    await index_is_rid(stack, store)
    await index_is_rid(stack, other)
    assert await found(client, store) == set(files[2:])
    assert await found(client, other) == {files[0], *files[2:]}


async def test_stores_that_go_are_not_searched(stack: Stack, client: openai.AsyncOpenAI) -> None:
    """T8, X1: one that is deleted answers as one that never was, one that has expired says so."""
    store, files = await shelved(client, QUERY)
    expired, _ = await shelved(client, QUERY)
    await client.vector_stores.update(
        expired, expires_after={"anchor": "last_active_at", "days": 1}
    )
    await client.vector_stores.delete(store)
    await stack.sql(
        "UPDATE vector_stores SET last_active_at = last_active_at - interval '2 days',"
        " expires_at = expires_at - interval '2 days' WHERE id = %s",
        expired,
    )
    for gone, word in ((store, "not found"), (expired, "expired")):
        tool: Any = {"type": "file_search", "vector_store_ids": [gone]}
        for request in (
            client.vector_stores.search(gone, query=QUERY),
            client.vector_stores.files.create(gone, file_id=files[0]),
            client.vector_stores.file_batches.create(gone, file_ids=files),
            client.responses.create(model="m", input="hi", tools=[tool]),
        ):
            with pytest.raises(openai.NotFoundError, match=word):
                await request
    await index_is_rid(stack, store)
    assert (await client.files.retrieve(files[0])).id == files[0]
    again = (await client.vector_stores.create(file_ids=files)).id
    await client.vector_stores.files.poll(files[0], vector_store_id=again)
    assert await found(client, again) == {files[0]}


async def test_a_file_that_is_cut_anew_has_its_new_chunks_alone(
    stack: Stack, client: openai.AsyncOpenAI
) -> None:
    """T8: attached again with other chunks, the old ones are gone from the next search on."""
    store, [file] = await shelved(client, LONG)

    async def texts(ranker: str) -> list[str]:
        options: Any = {"ranker": ranker}
        page = await client.vector_stores.search(
            store, query=QUERY, max_num_results=50, ranking_options=options
        )
        return sorted(result.content[0].text for result in page.data)

    small = await texts("none")
    await client.vector_stores.files.create(store, file_id=file, chunking_strategy=LARGE)
    between = await texts("none")
    done = await client.vector_stores.files.poll(file, vector_store_id=store)
    assert done.status == "completed"
    held = await client.vector_stores.files.content(file, vector_store_id=store)
    large = sorted(str(part.text) for part in held.data)
    assert 0 < len(large) < len(small)
    assert between in ([], large)
    for _ in range(2):
        assert await texts("none") == await texts("auto") == large
        await index_is_rid(stack, store)


async def test_another_model_finds_all_after_a_reindex(
    postgres_server: EmbeddedPostgres, stage: ScriptedModel, server: EmbeddingsServer
) -> None:
    """T8: vectors of two models, even of two sizes, are never compared; each text is embedded again."""
    database = await create_database(postgres_server)
    contents = [f"{QUERY} {number}" for number in range(5)]
    async with retrieving_stack(stage, database, server) as stack, a_client(stack) as client:
        store, files = await shelved(client, *contents)
        assert await found(client, store) == set(files)
    async with EmbeddingsServer(dimensions=48) as other:
        changed = embedded_by(other)
        embeddings: Mapping[str, object] = {**changed["embeddings"], "model": "other"}
        async with (
            running_stack(stage, database, None, **{**changed, "embeddings": embeddings}) as stack,
            a_client(stack) as client,
        ):
            assert await found(client, store) == set()
            told = await reindexed(stack, other, model="other")
            assert told == (0, "5 of 5 file(s) put into the index.")
            assert await found(client, store) == set(files)
            sent = [each for request in other.requests for each in request.json["input"]]
            assert sorted(each for each in sent if each != QUERY) == contents
            told = await reindexed(stack, other, model="other")
            assert told[1].startswith("0 of 5 file(s)")
            await client.vector_stores.files.delete(files[0], vector_store_id=store)
            assert await found(client, store) == set(files[1:])
