"""The prompt stores keep the contract."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from engine.ports.prompts import PromptStore
from storage.memory.prompts import MemoryPrompts
from storage.postgres.pool import open_pool
from storage.postgres.prompts import PostgresPrompts
from tests.contract.suites import tenant
from tests.contract.suites.prompts import PromptContract

__all__ = ["tenant"]


class TestMemoryPrompts(PromptContract):
    """`storage.memory` does what every prompt store does."""

    @pytest.fixture
    def prompts(self) -> PromptStore:
        return MemoryPrompts(lambda: 1_700_000_000.5)


class TestPostgresPrompts(PromptContract):
    """`storage.postgres` does what every prompt store does."""

    @pytest_asyncio.fixture
    async def prompts(self, owned_database: str) -> AsyncIterator[PromptStore]:
        async with open_pool(owned_database) as pool:
            yield PostgresPrompts(pool)
