"""Fixtures: the real thing behind Envoy, and clients of it.

`stack`, `wire` and the SDK's clients reach it through Envoy and ext_proc; tests marked with
`BOTH_WAYS` run a second time against workers that speak HTTP themselves, without any Envoy, and those
marked with `BOTH_ENVOYS` a second time behind an Envoy without ext_proc.

`stack` is shared by all tests that break nothing; `hasty` is one with short times and small bounds;
`own_stack` and its `own_postgres` are a module's own, for tests that kill something.
"""

from __future__ import annotations

import base64
import os
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import aiohttp
import openai
import pytest
import pytest_asyncio

from extproc.http_address import UnixAddress
from storage.postgres.embedded import EmbeddedPostgres
from tests.support.fix_postgres import create_database
from tests.support.scripted_model import ScriptedModel
from tests.support.stack import (
    CLIENT_KEY,
    KillablePostgres,
    Stack,
    plain_stack,
    running_stack,
    short_directory,
    standalone_stack,
)
from tests.support.wire import Wire

HASTY_BODY_LIMIT = 64 << 10

BOTH_WAYS = pytest.mark.parametrize("way", ["envoy", "standalone"], indirect=True)
"""Mark of tests that must find no difference between ext_proc and HTTP."""

ALL_WAYS = pytest.mark.parametrize("way", ["envoy", "inline", "standalone"], indirect=True)
"""The same for those that must find none inline either, where the request is the model's first turn."""

EVERY_WAY = pytest.mark.parametrize(
    "way",
    [
        "envoy", "inline", "standalone",
        "chart gateway", "chart envoy", "chart istio", "chart envoyGateway",
    ],
    indirect=True,
)  # fmt: skip
"""The same for those that every installation of the chart must pass as well."""

BOTH_MODES = pytest.mark.parametrize("way", ["envoy", "inline"], indirect=True)
"""The same for tests of what the model server may do, by relay and inline."""

INLINE = pytest.mark.parametrize("way", ["inline"], indirect=True)
"""Mark of tests of inline mode alone."""

BOTH_ENVOYS = pytest.mark.parametrize("way", ["envoy", "plain"], indirect=True)
"""The same for tests that need `doors`: only there each worker can be reached alone over HTTP."""


@pytest.fixture(autouse=True)
def scripts_of_one_test_alone() -> Iterator[None]:
    """What a test has queued and nobody has played is not for the next one."""
    yield
    for model in ScriptedModel.running:
        model.unscript()


@pytest_asyncio.fixture(scope="session")
async def stage() -> AsyncIterator[ScriptedModel]:
    """The model server behind every shared stack; tests add scripts under names of their own."""
    async with ScriptedModel() as model:
        yield model


@pytest_asyncio.fixture(scope="session")
async def envoy_stack(
    postgres_server: EmbeddedPostgres, stage: ScriptedModel
) -> AsyncIterator[Stack]:
    """Two workers with the settings of production, behind Envoy."""
    async with running_stack(stage, await create_database(postgres_server)) as running:
        yield running


@pytest_asyncio.fixture(scope="session")
async def inline_stack(
    postgres_server: EmbeddedPostgres, stage: ScriptedModel
) -> AsyncIterator[Stack]:
    """The same where each request is itself the first call of the model."""
    async with running_stack(
        stage, await create_database(postgres_server), envoy={"inline": True}
    ) as running:
        yield running


@pytest_asyncio.fixture(scope="session")
async def standalone_workers(
    postgres_server: EmbeddedPostgres, stage: ScriptedModel
) -> AsyncIterator[Stack]:
    """Two workers that speak HTTP, without any Envoy."""
    key = base64.b64encode(os.urandom(32)).decode()
    async with standalone_stack(
        stage, await create_database(postgres_server), sealing={"keys": key}
    ) as running:
        yield running


@pytest_asyncio.fixture(scope="module")
async def plain(postgres_server: EmbeddedPostgres, stage: ScriptedModel) -> AsyncIterator[Stack]:
    """Two workers as an ordinary cluster of an Envoy that knows nothing of ext_proc."""
    async with plain_stack(stage, await create_database(postgres_server)) as running:
        yield running


@pytest.fixture
def way(request: pytest.FixtureRequest) -> str:
    """How requests reach the workers: through Envoy unless a test says otherwise."""
    return str(getattr(request, "param", "envoy"))


@pytest.fixture
def stack(way: str, request: pytest.FixtureRequest) -> Stack:
    """Two workers with the settings of production; what runs is shared by all tests."""
    names = {
        "envoy": "envoy_stack",
        "inline": "inline_stack",
        "standalone": "standalone_workers",
        "plain": "plain",
        "chart gateway": "chart_gateway",
        "chart envoy": "chart_envoy",
        "chart istio": "chart_istio",
        "chart envoyGateway": "chart_envoy_gateway",
    }
    shared: Stack = request.getfixturevalue(names[way])
    return shared


@pytest_asyncio.fixture(scope="session")
async def hasty(postgres_server: EmbeddedPostgres, stage: ScriptedModel) -> AsyncIterator[Stack]:
    """One worker for which a second is a long time and 64 KiB are a lot."""
    async with running_stack(
        stage,
        await create_database(postgres_server),
        sidecar={"workers": 1, "heartbeat_seconds": 0.1, "open_after_seconds": 0.2},
        model={"silence_seconds": 1.0},
        limits={
            "body_bytes": HASTY_BODY_LIMIT,
            "line_bytes": 64 << 10,
            "response_bytes": 256 << 10,
        },
    ) as running:
        yield running


@pytest_asyncio.fixture(scope="module")
async def own_postgres(postgres_binaries: Path | None) -> AsyncIterator[KillablePostgres]:
    """A Postgres that may be killed."""
    with short_directory() as directory:
        postgres = KillablePostgres(directory, postgres_binaries)
        try:
            await postgres.start()
            yield postgres
        finally:
            await postgres.stop()


@pytest_asyncio.fixture(scope="module")
async def own_stack(own_postgres: KillablePostgres, stage: ScriptedModel) -> AsyncIterator[Stack]:
    """A stack that may be hurt; a worker that is told to stop drains as in production."""
    assert own_postgres.server is not None
    async with running_stack(
        stage,
        own_postgres.server.conninfo,
        sidecar={"workers": 2, "drain_seconds": 2, "grace_seconds": 2},
        postgres={"outage_seconds": 1.0},
    ) as running:
        yield running


@pytest_asyncio.fixture
async def wire(stack: Stack) -> AsyncIterator[Wire]:
    """A plain client of `stack`."""
    async with open_session(stack.url) as session:
        yield Wire(session)


@pytest_asyncio.fixture(scope="session")
async def hasty_wire(hasty: Stack) -> AsyncIterator[Wire]:
    """A plain client of `hasty`."""
    async with open_session(hasty.url) as session:
        yield Wire(session)


@pytest_asyncio.fixture(scope="module")
async def own_wire(own_stack: Stack) -> AsyncIterator[Wire]:
    """A plain client of `own_stack`."""
    async with open_session(own_stack.url) as session:
        yield Wire(session)


@pytest.fixture
def doors(way: str, request: pytest.FixtureRequest) -> tuple[Wire, Wire]:
    """Plain clients of one worker of `stack` each."""
    pair: tuple[Wire, Wire] = request.getfixturevalue(f"{way}_doors")
    return pair


@pytest_asyncio.fixture(scope="session")
async def envoy_doors(envoy_stack: Stack) -> AsyncIterator[tuple[Wire, Wire]]:
    """Plain clients of one worker each, through an Envoy each."""
    async with (
        envoy_stack.door(0) as first,
        envoy_stack.door(1) as second,
        open_session(first) as to_first,
        open_session(second) as to_second,
    ):
        yield Wire(to_first), Wire(to_second)


@pytest_asyncio.fixture(scope="module")
async def plain_doors(plain: Stack) -> AsyncIterator[tuple[Wire, Wire]]:
    """Plain clients of one worker each, at its own socket."""
    async with (
        open_session("http://x", _socket(plain, 0)) as to_first,
        open_session("http://x", _socket(plain, 1)) as to_second,
    ):
        yield Wire(to_first), Wire(to_second)


@pytest_asyncio.fixture
async def client(stack: Stack) -> AsyncIterator[openai.AsyncOpenAI]:
    """The official SDK, asynchronous, without retries of its own."""
    async with openai.AsyncOpenAI(
        base_url=f"{stack.url}/v1", api_key=CLIENT_KEY, max_retries=0, timeout=20
    ) as sdk:
        yield sdk


@pytest_asyncio.fixture
async def sync_client(stack: Stack) -> AsyncIterator[openai.OpenAI]:
    """The official SDK, synchronous: call it in a thread, the model runs in the test's loop."""
    with openai.OpenAI(
        base_url=f"{stack.url}/v1", api_key=CLIENT_KEY, max_retries=0, timeout=20
    ) as sdk:
        yield sdk


def open_session(url: str, connector: aiohttp.BaseConnector | None = None) -> aiohttp.ClientSession:
    """Return a session that opens as many connections as it needs."""
    return aiohttp.ClientSession(
        url,
        headers={"authorization": f"Bearer {CLIENT_KEY}"},
        timeout=aiohttp.ClientTimeout(60),
        connector=connector or aiohttp.TCPConnector(limit=0),
        auto_decompress=False,
    )


def _socket(stack: Stack, index: int) -> aiohttp.BaseConnector:
    """Return what connects to the socket on which a worker speaks HTTP."""
    address = stack.settings.http_address(index)
    assert isinstance(address, UnixAddress)
    return aiohttp.UnixConnector(str(address.path), limit=0)
