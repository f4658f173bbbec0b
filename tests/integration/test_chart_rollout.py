"""A rollout of the chart under load, with its own hooks and times, by real processes (rule E4)."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from functools import partial
from itertools import pairwise

import aiohttp
import pytest

from storage.postgres.embedded import EmbeddedPostgres
from storage.postgres.migrate import migrate
from tests.support.fix_postgres import create_database
from tests.support.pods import Service, pod
from tests.support.replies import say, text
from tests.support.scripted_model import ScriptedModel
from tests.support.stack import Stack, eventually
from tests.support.stream_rules import check_stream
from tests.support.wire import Seen, Wire

PATIENCE = 60.0


@pytest.mark.timeout(180)
async def test_a_rollout_fails_no_request(
    stage: ScriptedModel, postgres_server: EmbeddedPostgres
) -> None:
    """E4: each pod is replaced, a new one first; streams, answers and what passes through: 0 failures."""
    database = await create_database(postgres_server)
    await migrate(database)
    service = Service()
    url = await service.start()
    values = {"gateway": {"drain": {"leastSeconds": 1.5, "mostSeconds": 20}}}
    start = partial(pod, service, database, stage.url, **values)
    answers: list[Seen] = []
    over = asyncio.Event()

    async def stream(wire: Wire, model: str) -> None:
        while not over.is_set():
            answers.append(seen := await wire.create(model=model, timeout=PATIENCE))
            check_stream(bytes(seen.raw))

    async def ask(wire: Wire, model: str) -> None:
        while not over.is_set():
            answers.append(await wire.create(model=model, stream=False, timeout=PATIENCE))
            answers.append(await wire.ask("GET", "/v1/models"))

    async def roll(pods: list[AsyncExitStack]) -> None:
        for old, new in pairwise(pods):
            await eventually(partial(_more_than, answers, len(answers) + 20), PATIENCE)
            await new.enter_async_context(start())
            await old.aclose()
        await eventually(partial(_more_than, answers, len(answers) + 20), PATIENCE)
        over.set()

    async with AsyncExitStack() as first, AsyncExitStack() as second, AsyncExitStack() as third:
        settings = await first.enter_async_context(start())
        stack = Stack(url, settings, stage, [], {})
        model = stack.plays(say(text("Hel", "lo")))
        async with aiohttp.ClientSession(url) as session:
            wire = Wire(session)
            await asyncio.gather(
                roll([first, second, third]),
                stream(wire, model),
                stream(wire, model),
                ask(wire, model),
            )
        await service.stop()

    assert {answer.status for answer in answers} == {200}
    assert all(answer.clean for answer in answers)


def _more_than(answers: list[Seen], number: int) -> bool:
    return len(answers) > number
