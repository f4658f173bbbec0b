"""A stack whose MCP servers are on this machine, for tests of consent to their calls."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator
from typing import Any

import openai
import pytest_asyncio

from storage.postgres.embedded import EmbeddedPostgres
from tests.support.fix_postgres import create_database
from tests.support.fix_stack import open_session
from tests.support.scripted_model import ScriptedModel
from tests.support.scripts import Script
from tests.support.stack import CLIENT_KEY, Stack, running_stack
from tests.support.wire import Wire

KEY = "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY="


@pytest_asyncio.fixture(scope="module")
async def consent_stack(
    postgres_server: EmbeddedPostgres, stage: ScriptedModel
) -> AsyncIterator[Stack]:
    """Envoy and two workers that may reach servers on this machine; a sealing key is set."""
    async with running_stack(
        stage,
        await create_database(postgres_server),
        tools={"list_seconds": 10.0, "call_seconds": 5.0},
        outbound={"allow_http": True, "networks": "127.0.0.0/8"},
        sealing={"keys": KEY},
    ) as running:
        yield running


@pytest_asyncio.fixture(scope="module")
async def consent_wire(consent_stack: Stack) -> AsyncIterator[Wire]:
    """A plain client of it."""
    async with open_session(consent_stack.url) as session:
        yield Wire(session)


@pytest_asyncio.fixture(scope="module")
async def consent_client(consent_stack: Stack) -> AsyncIterator[openai.AsyncOpenAI]:
    """The official SDK."""
    async with openai.AsyncOpenAI(
        base_url=f"{consent_stack.url}/v1", api_key=CLIENT_KEY, max_retries=0, timeout=30
    ) as sdk:
        yield sdk


def takes_turns(stack: Stack, *scripts: Script) -> str:
    """Queue a script for each of the next model turns; return a model name that no other test uses."""
    stack.model.script(*scripts)
    return f"m-{uuid.uuid4().hex}"


def guarded(url: str, label: str = "s", **fields: Any) -> Any:
    """Return the declaration of a server whose calls need consent, as is the default."""
    return {"type": "mcp", "server_label": label, "server_url": url, **fields}


def outputs(model_input: list[dict[str, Any]]) -> list[Any]:
    """Return the outputs of tools that the model was sent."""
    return [i["output"] for i in model_input if i.get("type") == "function_call_output"]
