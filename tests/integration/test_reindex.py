"""`holdfast reindex`: an index that lost everything is made again from the database."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import openai
import pytest
import pytest_asyncio

from extproc.cli import run
from storage.postgres.embedded import EmbeddedPostgres
from tests.support.embeddings_server import EmbeddingsServer
from tests.support.fix_postgres import create_database
from tests.support.retrieving import killed_lite, reindexed, retrieving_stack
from tests.support.scripted_model import ScriptedModel
from tests.support.stack import CLIENT_KEY, Stack, eventually

TEXTS = ("red apples", "green pears", "blue plums")


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
    async with retrieving_stack(stage, database, server, index={"kind": None}) as running:
        yield running


async def test_a_lost_index_is_made_again(
    stack: Stack, server: EmbeddingsServer, capsys: pytest.CaptureFixture[str]
) -> None:
    """T8: Milvus Lite's files are gone; nothing is embedded again, and all is found again."""
    async with openai.AsyncOpenAI(
        base_url=f"{stack.url}/v1", api_key=CLIENT_KEY, max_retries=5, timeout=30
    ) as client:
        store = (await client.vector_stores.create()).id
        for text in TEXTS:
            done = await client.vector_stores.files.upload_and_poll(
                vector_store_id=store, file=("a.txt", text.encode())
            )
            assert done.status == "completed"
        assert await _found(client, store) == sorted(TEXTS)

        await _lose(stack)
        await _becomes(client, store, [])
        asked = len(server.requests)

        told = await reindexed(stack, server)
        assert told == (0, "3 of 3 file(s) put into the index.")
        assert len(server.requests) == asked
        assert await _found(client, store) == sorted(TEXTS)
        assert "3 of 3 files" in capsys.readouterr().err
        assert (await reindexed(stack, server))[1].startswith("0 of 3 file(s)")
        # What it runs with is known beside it: the same model, the same index.
        beside = {"HOLDFAST_DATA_DIR": str(stack.settings.data_dir)}
        assert await asyncio.to_thread(run, ["reindex", "--clear"], beside) == 0
        assert await _found(client, store) == sorted(TEXTS)
        assert (await reindexed(stack, server, "--tenant", "x"))[1].startswith("0 of 0 file(s)")
        assert (await reindexed(stack, server, "--clear"))[1].startswith("3 of 3 file(s)")
        assert await _found(client, store) == sorted(TEXTS)


async def _found(client: openai.AsyncOpenAI, store: str) -> list[str]:
    page = await client.vector_stores.search(store, query=list(TEXTS))
    return sorted(result.content[0].text for result in page.data)


async def _becomes(client: openai.AsyncOpenAI, store: str, wanted: list[str]) -> None:
    """Wait until a search finds this: the index is away for a while."""

    async def so() -> bool:
        try:
            return await _found(client, store) == wanted
        except openai.InternalServerError:
            return False

    await eventually(so, timeout=60)


async def _lose(stack: Stack) -> None:
    """Take Milvus Lite's files away, and let it begin with nothing."""
    directory = stack.settings.data_dir / "milvus"
    directory.rename(directory.with_name("gone"))
    await killed_lite(stack)


def test_without_an_index_it_is_said_which_setting_is_missing(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """H1."""
    environ = {
        "HOLDFAST_POSTGRES__URL": "postgresql://nobody@127.0.0.1:1/x",
        "HOLDFAST_EMBEDDINGS__SOURCE": "upstream",
        "HOLDFAST_EMBEDDINGS__MODEL": "m",
        "HOLDFAST_INDEX__KIND": "off",
    }
    assert run(["reindex"], environ) == 2
    assert "HOLDFAST_INDEX__KIND" in capsys.readouterr().err
