"""Vector stores through Envoy, with the official SDK: two workers, real Postgres, real documents."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import openai
import pytest
import pytest_asyncio

from storage.postgres.embedded import EmbeddedPostgres
from tests.support.embeddings_server import EmbeddingsServer, Fault, Slow
from tests.support.fix_postgres import create_database
from tests.support.replies import say, text
from tests.support.retrieving import retrieving_stack
from tests.support.scripted_model import ScriptedModel
from tests.support.stack import CLIENT_KEY, Stack, eventually

SMALL: Any = {"type": "static", "static": {"max_chunk_size_tokens": 100, "chunk_overlap_tokens": 0}}


@pytest_asyncio.fixture(scope="module")
async def server() -> AsyncIterator[EmbeddingsServer]:
    """What makes vectors."""
    async with EmbeddingsServer(dimensions=64) as running:
        yield running


@pytest_asyncio.fixture(scope="module")
async def stack(
    postgres_server: EmbeddedPostgres, stage: ScriptedModel, server: EmbeddingsServer
) -> AsyncIterator[Stack]:
    """A stack that retrieves."""
    async with retrieving_stack(
        stage, await create_database(postgres_server), server,
        retrieval={"rewrite_model": "script/rewriter", "lease_seconds": 3},
    ) as running:  # fmt: skip
        yield running


@pytest_asyncio.fixture
async def client(stack: Stack) -> AsyncIterator[openai.AsyncOpenAI]:
    """The official SDK."""
    async with openai.AsyncOpenAI(
        base_url=f"{stack.url}/v1", api_key=CLIENT_KEY, max_retries=0, timeout=20
    ) as sdk:
        yield sdk


async def uploaded(client: openai.AsyncOpenAI, content: str, name: str = "a.txt") -> str:
    """Upload a file; return its id."""
    file = await client.files.create(file=(name, content.encode()), purpose="assistants")
    return file.id


async def found(client: openai.AsyncOpenAI, store: str, query: Any, **more: Any) -> list[str]:
    """Return the texts that a search finds."""
    page = await client.vector_stores.search(store, query=query, **more)
    return [result.content[0].text for result in page.data]


async def test_a_file_is_attached_polled_and_found(client: openai.AsyncOpenAI) -> None:
    """T8: from upload to result, with the SDK's own helpers."""
    store = await client.vector_stores.create(name="zoo")
    file_id = await uploaded(client, "The lion is the king of the animals.", "lion.txt")
    done = await client.vector_stores.files.create_and_poll(
        file_id, vector_store_id=store.id, attributes={"kind": "cat", "legs": 4}
    )
    assert (done.status, done.last_error) == ("completed", None)
    other = await client.vector_stores.files.upload_and_poll(
        vector_store_id=store.id, file=("whale.md", b"# Whale\n\nThe whale sings in the sea.")
    )
    assert other.status == "completed"

    page = await client.vector_stores.search(store.id, query="who is the king of the animals")
    best = page.data[0]
    assert (best.file_id, best.filename) == (file_id, "lion.txt")
    assert best.attributes == {"kind": "cat", "legs": 4}
    assert best.content[0].text == "The lion is the king of the animals."
    assert 0 < best.score <= 1
    content = await client.vector_stores.files.content(file_id, vector_store_id=store.id)
    assert [part.text for part in content.data] == ["The lion is the king of the animals."]
    counted = await client.vector_stores.retrieve(store.id)
    assert (counted.file_counts.completed, counted.file_counts.total) == (2, 2)
    assert (counted.status, counted.usage_bytes > 0) == ("completed", True)


async def test_stores_are_managed(client: openai.AsyncOpenAI) -> None:
    """H2: made, listed by pages, changed, deleted."""
    made = [
        await client.vector_stores.create(
            name=f"store {n}",
            metadata={"n": str(n)},
            expires_after={"anchor": "last_active_at", "days": 3},
        )
        for n in range(3)
    ]
    ids = [store.id for store in made]
    listed = [s.id async for s in client.vector_stores.list(limit=1, order="asc", after=ids[0])]
    assert listed[:2] == ids[1:]
    page = await client.vector_stores.list(order="asc", before=ids[1], limit=1)
    assert [store.id for store in page.data] == [ids[0]]
    changed = await client.vector_stores.update(ids[0], name="new", expires_after=None)
    assert (changed.name, changed.expires_after, changed.expires_at) == ("new", None, None)
    assert changed.metadata == {"n": "0"}
    assert made[0].expires_at == made[0].last_active_at + 3 * 86_400  # type: ignore[operator]
    for store_id in ids:
        assert (await client.vector_stores.delete(store_id)).deleted
        with pytest.raises(openai.NotFoundError):
            await client.vector_stores.retrieve(store_id)


async def test_files_are_filtered_labelled_and_detached(client: openai.AsyncOpenAI) -> None:
    """T8: filters are exact, from the next search on."""
    files = [await uploaded(client, f"report number {n}", f"{n}.txt") for n in range(3)]
    store = await client.vector_stores.create(file_ids=files)
    for file_id in files:
        await client.vector_stores.files.poll(file_id, vector_store_id=store.id)
    for n, file_id in enumerate(files):
        await client.vector_stores.files.update(
            file_id, vector_store_id=store.id, attributes={"n": n, "even": n % 2 == 0}
        )
    high: Any = {"type": "gt", "key": "n", "value": 0}
    even: Any = {"type": "eq", "key": "even", "value": True}
    both: Any = {"type": "and", "filters": [high, even]}
    assert sorted(await found(client, store.id, "report", filters=high)) == [
        "report number 1", "report number 2",
    ]  # fmt: skip
    assert await found(client, store.id, "report", filters=both) == ["report number 2"]
    assert len(await found(client, store.id, "report", max_num_results=2)) == 2

    listed = await client.vector_stores.files.list(store.id, filter="completed", order="asc")
    assert [file.id for file in listed.data] == files
    await client.vector_stores.files.delete(files[2], vector_store_id=store.id)
    assert await found(client, store.id, "report", filters=both) == []
    await client.files.delete(files[1])
    assert await found(client, store.id, "report") == ["report number 0"]
    with pytest.raises(openai.NotFoundError):
        await client.vector_stores.files.retrieve(files[1], vector_store_id=store.id)


async def test_rankers_thresholds_and_several_queries(client: openai.AsyncOpenAI) -> None:
    """T8: every option of a search."""
    texts = ("red apples", "green pears", "blue plums")
    store = await client.vector_stores.create(
        file_ids=[await uploaded(client, each) for each in texts]
    )
    await emptied(client, store.id)
    page = await client.vector_stores.search(store.id, query=["red apples", "blue plums"])
    assert {r.content[0].text for r in page.data[:2]} == {"red apples", "blue plums"}
    assert page.model_extra is not None
    assert page.model_extra["search_query"] == ["red apples", "blue plums"]
    strict: Any = {"ranker": "none", "score_threshold": 0.95}
    assert await found(client, store.id, "green pears", ranking_options=strict) == ["green pears"]
    ranked: Any = {"ranker": "default-2024-11-15"}
    assert (await found(client, store.id, "pears", ranking_options=ranked))[0] == "green pears"


async def emptied(client: openai.AsyncOpenAI, store: str) -> None:
    """Wait until nothing of a store is in progress."""

    async def done() -> bool:
        return (await client.vector_stores.retrieve(store)).file_counts.in_progress == 0

    await eventually(done)


async def test_a_query_is_rewritten_by_a_model(client: openai.AsyncOpenAI, stack: Stack) -> None:
    """Promise 5: it is a turn like any other, through Envoy; the answer tells what was searched for."""
    stack.model.named["rewriter"] = say(text("yellow lemons"))
    store = await client.vector_stores.create(file_ids=[await uploaded(client, "yellow lemons")])
    await emptied(client, store.id)
    page = await client.vector_stores.search(
        store.id, query="which one is sour?", rewrite_query=True
    )
    assert page.model_extra is not None
    assert page.model_extra["search_query"] == ["yellow lemons"]
    assert page.data[0].content[0].text == "yellow lemons"


async def test_a_batch_is_polled_to_its_end(client: openai.AsyncOpenAI) -> None:
    """Some fail, and say why; the others are found."""
    good = [await uploaded(client, f"good {n}") for n in range(3)]
    bad = await client.files.create(file=("a.zip", b"PK\x03\x04junk"), purpose="assistants")
    store = await client.vector_stores.create()
    batch = await client.vector_stores.file_batches.create_and_poll(
        store.id, file_ids=[*good, bad.id], chunking_strategy=SMALL
    )
    assert batch.status == "completed"
    assert (batch.file_counts.completed, batch.file_counts.failed) == (3, 1)
    failed = await client.vector_stores.file_batches.list_files(
        batch.id, vector_store_id=store.id, filter="failed"
    )
    [file] = failed.data
    assert file.id == bad.id
    assert file.last_error is not None
    assert file.last_error.code in ("unsupported_file", "invalid_file")
    assert file.last_error.message
    assert len(await found(client, store.id, "good")) == 3


async def test_a_batch_is_cancelled(client: openai.AsyncOpenAI, server: EmbeddingsServer) -> None:
    """What is done stays; what is not stops, and is never found."""
    gate = asyncio.Event()
    server.script(*[Slow(gate)] * 8)
    files: Any = [{"file_id": await uploaded(client, f"slow {n}")} for n in range(8)]
    store = await client.vector_stores.create()
    batch = await client.vector_stores.file_batches.create(store.id, files=files)
    cancelled = await client.vector_stores.file_batches.cancel(batch.id, vector_store_id=store.id)
    assert (cancelled.status, cancelled.file_counts.cancelled) == ("cancelled", 8)
    gate.set()
    server._steps.clear()
    assert await found(client, store.id, "slow") == []
    again = await client.vector_stores.file_batches.retrieve(batch.id, vector_store_id=store.id)
    assert again.file_counts.cancelled == 8


async def test_errors_of_the_embedding_model_are_told(
    client: openai.AsyncOpenAI, server: EmbeddingsServer
) -> None:
    """A text that is refused fails the file, with the server's words; a key that is refused is waited for."""
    store = await client.vector_stores.create()
    file_id = await uploaded(client, "unlucky")
    server.script(Fault(400, "Not this text."))
    done = await client.vector_stores.files.create_and_poll(file_id, vector_store_id=store.id)
    assert done.status == "failed"
    assert done.last_error is not None
    assert (done.last_error.code, "Not this text." in done.last_error.message) == (
        "invalid_file",
        True,
    )
    file_id = await uploaded(client, "luckier")
    server.script(Fault(401, "Not with this key."))
    done = await client.vector_stores.files.create_and_poll(file_id, vector_store_id=store.id)
    assert (done.status, done.last_error) == ("completed", None)
    again = await client.vector_stores.files.create_and_poll(file_id, vector_store_id=store.id)
    assert again.status == "completed"


async def test_wrong_requests_name_what_is_wrong(client: openai.AsyncOpenAI) -> None:
    """H1."""
    store = (await client.vector_stores.create()).id
    wrong: list[tuple[str, Any]] = [
        ("nom", client.post("/vector_stores", body={"nom": 1}, cast_to=object)),
        ("file_ids[0]", client.vector_stores.create(file_ids=["file-x"])),
        ("file_id", client.vector_stores.files.create(store, file_id="file-x")),
        ("max_num_results", client.vector_stores.search(store, query="a", max_num_results=51)),
        ("limit", client.vector_stores.list(limit=101)),
    ]
    for param, request in wrong:
        with pytest.raises(openai.BadRequestError) as caught:
            await request
        assert caught.value.param == param


async def test_what_has_expired_is_gone(client: openai.AsyncOpenAI, stack: Stack) -> None:
    """A store that nobody used for its days keeps its name and loses its files."""
    store = await client.vector_stores.create(
        file_ids=[await uploaded(client, "old news")],
        expires_after={"anchor": "last_active_at", "days": 1},
    )
    await emptied(client, store.id)
    assert await found(client, store.id, "news") == ["old news"]
    await stack.sql(
        "UPDATE vector_stores SET last_active_at = last_active_at - interval '2 days',"
        " expires_at = expires_at - interval '2 days' WHERE id = %s",
        store.id,
    )
    assert (await client.vector_stores.retrieve(store.id)).status == "expired"
    for request in (
        client.vector_stores.search(store.id, query="news"),
        client.vector_stores.files.create(store.id, file_id=await uploaded(client, "x")),
    ):
        with pytest.raises(openai.NotFoundError, match="expired"):
            await request
