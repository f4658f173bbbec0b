"""The memory store keeps the contract."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import pytest

from engine.ports import Store
from storage.memory import MemoryStore
from tests.contract.suites import StoreContract, tenant
from tests.contract.suites.bounds import NARROW

__all__ = ["tenant"]


class _Clock:
    def __init__(self) -> None:
        self.now = 1_700_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> _Clock:
    return _Clock()


@pytest.fixture
def store(clock: _Clock) -> Store:
    return MemoryStore(clock)


@pytest.fixture
def narrow() -> Store:
    return MemoryStore(reads=NARROW)


@pytest.fixture
def wait(clock: _Clock) -> Callable[[float], Awaitable[None]]:
    async def wait(seconds: float) -> None:
        clock.now += seconds

    return wait


class TestMemoryStore(StoreContract):
    """`storage.memory` does what every store does."""
