"""A stack of a module's own whose leases are short: for tests that kill and wait for recovery."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest_asyncio

from tests.support.fix_stack import open_session
from tests.support.scripted_model import ScriptedModel
from tests.support.stack import KillablePostgres, Stack, running_stack
from tests.support.wire import Wire


@pytest_asyncio.fixture(scope="module")
async def rugged(own_postgres: KillablePostgres, stage: ScriptedModel) -> AsyncIterator[Stack]:
    """Two workers, leases of two seconds, and patience with a database that is away."""
    assert own_postgres.server is not None
    async with running_stack(
        stage,
        own_postgres.server.conninfo,
        sidecar={"workers": 2, "drain_seconds": 1, "grace_seconds": 2, "heartbeat_seconds": 1},
        postgres={"outage_seconds": 60.0, "lease_seconds": 2.0},
    ) as running:
        yield running


@pytest_asyncio.fixture(scope="module")
async def rugged_wire(rugged: Stack) -> AsyncIterator[Wire]:
    """A plain client of `rugged`."""
    async with open_session(rugged.url) as opened:
        yield Wire(opened)
