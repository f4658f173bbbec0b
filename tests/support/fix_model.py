"""Fixtures: the scripted model for one test, and a client that asks it directly."""

from __future__ import annotations

from collections.abc import AsyncIterator

import aiohttp
import pytest

from tests.support.scripted_model import ScriptedModel


@pytest.fixture
async def model() -> AsyncIterator[ScriptedModel]:
    """A scripted model on a free port; without a script it is the demo model."""
    async with ScriptedModel() as scripted:
        yield scripted


@pytest.fixture
async def model_client(model: ScriptedModel) -> AsyncIterator[aiohttp.ClientSession]:
    """A client of the model that leaves compressed bytes as they are."""
    timeout = aiohttp.ClientTimeout(20)
    async with aiohttp.ClientSession(model.url, timeout=timeout, auto_decompress=False) as client:
        yield client
