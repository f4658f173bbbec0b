"""The Postgres store keeps the contract, also while servers and connections die."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest_asyncio

from engine.ports import ResponseStore
from storage.postgres.pool import open_pool
from storage.postgres.store import PostgresStore
from tests.contract.response_store import ResponseStoreContract, tenant

__all__ = ["tenant"]


@pytest_asyncio.fixture(scope="module")
async def store(database: str) -> AsyncIterator[ResponseStore]:
    async with open_pool(database) as pool:
        yield PostgresStore(pool)


class TestPostgresStore(ResponseStoreContract):
    """`storage.postgres` does what every store does."""
