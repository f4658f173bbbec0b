"""The memory store keeps the contract."""

from __future__ import annotations

import pytest

from engine.ports import ResponseStore
from storage.memory import MemoryStore
from tests.contract.response_store import ResponseStoreContract, tenant

__all__ = ["tenant"]


@pytest.fixture(scope="module")
def store() -> ResponseStore:
    return MemoryStore()


class TestMemoryStore(ResponseStoreContract):
    """`storage.memory` does what every store does."""
