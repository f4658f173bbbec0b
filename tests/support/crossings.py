"""A stack on which several parts of the loop meet, with clients of it, for `test_crossings`."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import openai
import pytest_asyncio

from storage.postgres.embedded import EmbeddedPostgres
from tests.support.consent_stack import KEY
from tests.support.fix_postgres import create_database
from tests.support.fix_stack import open_session
from tests.support.scripted_model import Received, ScriptedModel
from tests.support.stack import CLIENT_KEY, Stack, eventually, running_stack
from tests.support.wire import Wire


class Bench:
    """A stack, and clients of it."""

    def __init__(self, stack: Stack, wire: Wire, sdk: openai.AsyncOpenAI) -> None:
        self.stack = stack
        self.wire = wire
        self.sdk = sdk

    async def conversation(self) -> str:
        """Return the name of a new conversation."""
        return (await self.sdk.conversations.create()).id

    async def items(self, name: str) -> list[Any]:
        """Return what is in a conversation, oldest first."""
        return [item async for item in self.sdk.conversations.items.list(name, order="asc")]

    async def kinds(self, name: str) -> list[str]:
        """Return of which types that is."""
        return [item.type for item in await self.items(name)]

    async def made(self, form: str = "whole", **fields: Any) -> Any:
        """Return a response that was made in some form, as it is stored."""
        sent = {"input": "hi", **fields}
        if form == "streamed":
            async with self.sdk.responses.stream(**sent) as events:
                made = await events.get_final_response()
        else:
            made = await self.sdk.responses.create(**sent, background=form == "background")

        async def ended() -> bool:
            stored = await self.sdk.responses.retrieve(made.id)
            return stored.status not in ("queued", "in_progress")

        await eventually(ended, 30)
        return await self.sdk.responses.retrieve(made.id)

    async def ask(self, path: str, **body: Any) -> Any:
        """Post what the SDK has no method for."""
        return await self.sdk.post(path, cast_to=object, body=body)


@asynccontextmanager
async def _bench(
    server: EmbeddedPostgres, stage: ScriptedModel, **envoy: object
) -> AsyncIterator[Bench]:
    async with (
        running_stack(
            stage,
            await create_database(server),
            envoy=envoy,
            tools={"list_seconds": 10.0, "upstream_types": "web_search"},
            outbound={"allow_http": True, "networks": "127.0.0.0/8"},
            sealing={"keys": KEY},
            model={"dialects": "chat-*=chat"},
        ) as stack,
        open_session(stack.url) as session,
        openai.AsyncOpenAI(
            base_url=f"{stack.url}/v1", api_key=CLIENT_KEY, max_retries=0, timeout=30
        ) as sdk,
    ):
        yield Bench(stack, Wire(session), sdk)


@pytest_asyncio.fixture(scope="module")
async def relay(postgres_server: EmbeddedPostgres, stage: ScriptedModel) -> AsyncIterator[Bench]:
    """Each turn of the model goes through the model listener."""
    async with _bench(postgres_server, stage) as bench:
        yield bench


@pytest_asyncio.fixture(scope="module")
async def inline(postgres_server: EmbeddedPostgres, stage: ScriptedModel) -> AsyncIterator[Bench]:
    """The request itself is the first turn."""
    async with _bench(postgres_server, stage, inline=True) as bench:
        yield bench


def request_in(response: Any) -> str:
    """Return the id of the one request for consent."""
    [one] = [item for item in response.output if item.type == "mcp_approval_request"]
    return str(one.id)


def answer(wanted: str, *, approve: bool = True) -> list[Any]:
    """Return the input that answers a request for consent."""
    return [{"type": "mcp_approval_response", "approval_request_id": wanted, "approve": approve}]


def kinds(response: Any) -> list[str]:
    """Return of which types the output is."""
    return [item.type for item in response.output]


def grows(asked: list[Received]) -> bool:
    """True if each request begins with all of the one before but its end (rule M9)."""
    return all(
        after.body.startswith(before.body.removesuffix(b"]}"))
        for before, after in itertools.pairwise(asked)
    )


async def logged(stack: Stack, response_id: str, kind: str) -> bool:
    """True once an event of that kind is in the log of a response."""
    rows = await stack.sql(
        "SELECT 1 FROM events WHERE response_id = %s"
        " AND position(convert_to(%s, 'UTF8') in frames) > 0",
        response_id,
        f"response.{kind}",
    )
    return bool(rows)
