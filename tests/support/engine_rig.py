"""The engine put together with fakes at all of its ports, for tests of loop and operations."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any

import msgspec

from engine.answers import Answer, error_answer
from engine.errors import EngineError
from engine.limits import Limits
from engine.ports import StoredResponse
from engine.responses import Caller, Responses
from engine.runs import Runs
from tests.support.fake_model import FakeModel
from tests.support.fake_reply import FakeReply
from tests.support.faulty_store import FaultyStore
from tests.support.stream_rules import Event, check_stream, response_of

CALLER = Caller("default", {"x-request-id": "req-1"})
NOW = 1_700_000_000


def counting() -> Callable[[int], bytes]:
    """Return a source of bytes that never repeats and is the same in each test."""
    count = 0

    def take(size: int) -> bytes:
        nonlocal count
        count += 1
        return count.to_bytes(size, "big")

    return take


# The store is not waited for: a test that wants it says so.
SOON = Limits(save_wait=0.0)


class Rig:
    """An engine over a model that plays `model`'s steps, a memory store with faults, one caller."""

    def __init__(self, model: FakeModel, *, limits: Limits | None = None) -> None:
        self.model = model
        self.store = FaultyStore()
        self.runs = Runs()
        self.responses = Responses(
            store=self.store,
            model=model,
            runs=self.runs,
            clock=lambda: NOW,
            randomness=counting(),
            limits=limits if limits is not None else SOON,
            worker="worker-1",
        )

    async def create(self, reply: FakeReply | None = None, **fields: Any) -> FakeReply:
        """Create a response and wait for its end; errors become answers, as every adapter does it."""
        reply = reply if reply is not None else FakeReply()
        body = json.dumps({"model": "m", "input": "hi", **fields}).encode()
        async with asyncio.timeout(5):
            try:
                await self.responses.create(CALLER, body, "", reply)
            except EngineError as error:
                await reply.answer(error_answer(error))
        return reply

    async def stream(self, reply: FakeReply | None = None, **fields: Any) -> list[Event]:
        """Create a streamed response and return its events, checked by all rules."""
        reply = await self.create(reply, stream=True, **fields)
        assert reply.ended
        return check_stream(reply.raw)

    def start(self, reply: FakeReply, **fields: Any) -> asyncio.Task[FakeReply]:
        """Create a response in the background of the test."""
        return asyncio.get_running_loop().create_task(self.create(reply, **fields))

    async def stored(self) -> list[StoredResponse]:
        """Return everything that is stored, oldest first."""
        page = await self.store.list_responses(
            CALLER.tenant, limit=100, after=None, order="asc", model=None
        )
        return page.responses

    async def the_stored(self) -> StoredResponse:
        """Return the one response that is stored."""
        [stored] = await self.stored()
        return stored

    async def settled(self) -> None:
        """Wait until nothing runs any more."""
        await self.runs.drain(5)
        assert not len(self.runs)

    async def retrieve(self, wanted: str) -> Any:
        """Return a stored response as the API shows it."""
        answer: Answer = await self.responses.retrieve(CALLER, wanted, "")
        return json.loads(answer.body)


def small(limits: Limits | None = None, **changed: Any) -> Limits:
    """Return limits with some of them changed."""
    return msgspec.structs.replace(limits if limits is not None else SOON, **changed)


def final(events: list[Event]) -> Event:
    """Return the response object of the terminal event."""
    return response_of(events)
