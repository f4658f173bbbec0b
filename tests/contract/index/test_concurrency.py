"""Several workers with one index: what one has put in, all find."""

from __future__ import annotations

import asyncio
import random
from contextlib import AsyncExitStack
from typing import Any

import pytest
from pymilvus import AsyncMilvusClient

from storage.milvus.client import open_client
from storage.milvus.index import MilvusIndex
from tests.contract.index.conftest import OpenIndex
from tests.support.lite import Lite
from tests.support.vectors import a_chunk, random_unit

_WRITERS = 8
_FILES = 5
_CHUNKS = 20


async def test_writers_and_readers_side_by_side(open_index: OpenIndex, tenant: str) -> None:
    """T8: eight writers, who begin with an index that is not there yet, and as many readers.

    Each insert is found as soon as it is answered, whole, whoever asks; nothing of it is lost or doubled.
    """
    async with AsyncExitStack() as opened:
        indexes = [
            await opened.enter_async_context(open_index(f"side by side {tenant}"))
            for _ in range(_WRITERS)
        ]

        async def write(number: int) -> None:
            chance = random.Random(number)
            for file in range(_FILES):
                name = f"{number}-{file}"
                vectors = [random_unit(chance, 16) for _ in range(_CHUNKS)]
                chunks = [a_chunk(at, name, vector) for at, vector in enumerate(vectors)]
                await indexes[number].insert(tenant, "s", name, chunks)
                reader = indexes[(number + 1) % _WRITERS]
                assert await reader.count(tenant, "s", name) == _CHUNKS
                [hit] = await reader.by_vector(tenant, "s", vectors[3], limit=1)
                assert (hit.attachment, hit.number) == (name, 3)
                hits = await reader.by_words(tenant, "s", name, limit=99, attachments=[name])
                assert len(hits) == _CHUNKS

        await asyncio.gather(*(write(number) for number in range(_WRITERS)))
        question = random_unit(random.Random(1), 16)
        hits = await indexes[0].by_vector(tenant, "s", question, limit=10_000)
        assert len({(hit.attachment, hit.number) for hit in hits}) == len(hits)
        assert len(hits) == _WRITERS * _FILES * _CHUNKS


async def test_what_is_sent_at_once_is_small(
    lite: Lite, tenant: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """T2: the event loop stands still while pymilvus makes a message of rows, so these are few."""
    sent: list[int] = []
    insert = AsyncMilvusClient.insert

    async def counted(client: Any, name: str, rows: list[dict[str, Any]]) -> Any:
        sent.append(sum(len(row["embedding"]) for row in rows))
        return await insert(client, name, rows)

    monkeypatch.setattr(AsyncMilvusClient, "insert", counted)
    chance = random.Random(1)
    chunks = [a_chunk(at, "apple", random_unit(chance, 1536)) for at in range(50)]
    async with open_client(lite.url, timeout=30.0) as client:
        index = MilvusIndex(client, prefix="small", model="m")
        await index.insert(tenant, "s", "a", chunks)
        assert await index.count(tenant, "s", "a") == 50
    assert sum(sent) == 50 * 1536
    assert max(sent) <= 32_768
