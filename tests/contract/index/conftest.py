"""Fixtures: an index of each kind, and how to open more of them."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import TypeAlias

import pytest
import pytest_asyncio

from engine.ports import VectorIndex
from storage.milvus.client import open_client
from storage.milvus.index import MilvusIndex
from storage.pgvector.index import PgvectorIndex
from storage.pgvector.migrations import migrate_vectors
from storage.postgres.embedded import EmbeddedPostgres
from storage.postgres.migrate import migrate
from storage.postgres.pool import open_pool
from tests.support.exact_index import ExactIndex
from tests.support.fix_postgres import create_database
from tests.support.lite import Lite, running_lite

OpenIndex: TypeAlias = Callable[[str], AbstractAsyncContextManager[VectorIndex]]
"""Opens an index for the model of a name; the second one of a name sees what the first one holds."""

KINDS = ["exact", "pgvector", "lite"]


@pytest_asyncio.fixture(scope="session")
async def lite() -> AsyncIterator[Lite]:
    """One Milvus Lite for all tests that do not kill it."""
    async with running_lite() as server:
        yield server


@pytest_asyncio.fixture(scope="session")
async def vector_database(postgres_server: EmbeddedPostgres) -> str:
    """The conninfo of a database with the tables of the index."""
    conninfo = await create_database(postgres_server)
    await migrate(conninfo)
    await migrate_vectors(conninfo)
    return conninfo


@pytest.fixture(params=KINDS, scope="module")
def open_index(request: pytest.FixtureRequest) -> OpenIndex:
    """How an index of a kind is opened."""
    if request.param == "exact":
        return _exact()
    if request.param == "pgvector":
        return _pgvector(request.getfixturevalue("vector_database"))
    return _lite(request.getfixturevalue("lite").url)


@pytest_asyncio.fixture(scope="module")
async def index(open_index: OpenIndex) -> AsyncIterator[VectorIndex]:
    """An index of each kind, one for each module: use a tenant for each test."""
    async with open_index("a model") as opened:
        yield opened


@pytest.fixture
def tenant() -> str:
    """A tenant that has nothing yet."""
    return uuid.uuid4().hex


def _exact() -> OpenIndex:
    kept: dict[str, ExactIndex] = {}

    @asynccontextmanager
    async def opened(model: str) -> AsyncIterator[VectorIndex]:
        yield kept.setdefault(model, ExactIndex(kept.values()))

    return opened


def _pgvector(conninfo: str) -> OpenIndex:
    @asynccontextmanager
    async def opened(model: str) -> AsyncIterator[VectorIndex]:
        async with open_pool(conninfo, max_size=4, timeout=30.0) as pool:
            yield PgvectorIndex(pool, model)

    return opened


def _lite(url: str) -> OpenIndex:
    prefix = f"test_{uuid.uuid4().hex[:8]}"

    @asynccontextmanager
    async def opened(model: str) -> AsyncIterator[VectorIndex]:
        async with open_client(url, timeout=30.0) as client:
            yield MilvusIndex(client, prefix=prefix, model=model)

    return opened
