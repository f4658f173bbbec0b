"""The Postgres store keeps the contract."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable

import pytest
import pytest_asyncio

from engine.ports import Store
from storage.postgres.pool import open_pool
from storage.postgres.store import PostgresStore
from tests.contract.suites import StoreContract, tenant
from tests.contract.suites.bounds import NARROW
from tests.support.fix_postgres import empty_tables, let_pass

__all__ = ["tenant"]


@pytest_asyncio.fixture
async def store(owned_database: str) -> AsyncIterator[Store]:
    await empty_tables(owned_database)
    async with open_pool(owned_database) as pool:
        yield PostgresStore(pool)


@pytest_asyncio.fixture
async def narrow(owned_database: str) -> AsyncIterator[Store]:
    await empty_tables(owned_database)
    async with open_pool(owned_database) as pool:
        yield PostgresStore(pool, reads=NARROW)


@pytest.fixture
def wait(owned_database: str) -> Callable[[float], Awaitable[None]]:
    async def wait(seconds: float) -> None:
        await let_pass(owned_database, seconds)

    return wait


class TestPostgresStore(StoreContract):
    """`storage.postgres` does what every store does."""
