"""How often a model server is asked for one response, for each way in which it fails; and two of them.

The budget of retries is spent by failures, so these tests have a stack with a large one.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, contextmanager

import pytest
import pytest_asyncio

from storage.postgres.embedded import EmbeddedPostgres
from tests.support import replies
from tests.support.fix_postgres import create_database
from tests.support.fix_stack import open_session
from tests.support.replies import say, text
from tests.support.scripted_model import ScriptedModel
from tests.support.scripts import Body, Cut, Script, Start, Step
from tests.support.stack import Stack, eventually, running_stack
from tests.support.stream_rules import check_stream
from tests.support.wire import Wire

ANSWER = replies.stream(text("Hel", "lo"))
ERROR = replies.error_frame("Out of memory.")
JSON = {"content-type": "application/json"}

FAULTS: dict[str, tuple[list[Step], int]] = {
    "503": ([Body(lambda _: b"{}", 503)], 3),
    "503-later": ([Body(lambda _: b"{}", 503, {**JSON, "retry-after": "60"})], 1),
    "429": ([replies.rate_limited()], 1),
    "500": ([Body(lambda _: b"{}", 500)], 1),
    "reset-before-headers": ([Cut(reset=True)], 3),
    "end-before-headers": ([Cut()], 3),
    "reset-behind-headers": ([Start(), Cut(reset=True)], 2),
    "end-behind-headers": ([Start(), Cut()], 2),
    "reset-before-the-first-delta": ([ANSWER[:4], Cut()], 2),
    "clean-end": ([ANSWER[:4]], 2),
    "error-frame-first": ([ERROR], 2),
    "after-the-first-delta": ([ANSWER[:5], Cut()], 1),
    "error-after-the-first-delta": ([ANSWER[:5], ERROR], 1),
}
"""What the model server does each time -> how often it is asked."""


@pytest_asyncio.fixture(scope="module")
async def pair() -> AsyncIterator[list[ScriptedModel]]:
    """Two model servers."""
    async with AsyncExitStack() as running:
        yield [await running.enter_async_context(ScriptedModel()) for _ in range(2)]


@pytest_asyncio.fixture(scope="module")
async def served(
    pair: list[ScriptedModel], postgres_server: EmbeddedPostgres
) -> AsyncIterator[Stack]:
    """Two workers with the settings of production, in front of both."""
    urls = ",".join(model.url for model in pair)
    database = await create_database(postgres_server)
    async with running_stack(
        pair[0], database, model={"url": urls}, routing={"retry_budget": 1000}
    ) as stack:
        yield stack


@pytest_asyncio.fixture(scope="module")
async def wire(served: Stack) -> AsyncIterator[Wire]:
    async with open_session(served.url) as session:
        yield Wire(session)


def plays(pair: list[ScriptedModel], script: Script) -> str:
    """Let both servers play this under a name of its own."""
    name = f"test-{len(pair[0].named)}"
    for model in pair:
        model.named[name] = script
    return f"script/{name}"


@contextmanager
def failing_first(pair: list[ScriptedModel], script: Script) -> Iterator[None]:
    """Let each server play this to the next request that it gets."""
    for model in pair:
        model.script(script)
    yield
    for model in pair:
        model.unscript()


def asked(pair: list[ScriptedModel], model: str) -> list[int]:
    """Return how often each server was asked for a model."""
    name = f'"{model}"'.encode()
    return [sum(name in received.body for received in server.requests) for server in pair]


@pytest.mark.parametrize("stream", [True, False], ids=["stream", "whole"])
@pytest.mark.parametrize("fault", FAULTS)
async def test_a_fault_is_asked_for_again_by_one_of_us(
    pair: list[ScriptedModel], wire: Wire, fault: str, stream: bool
) -> None:
    """R1, R16: exact counts; Envoy's retries and ours are never multiplied."""
    steps, times = FAULTS[fault]
    model = plays(pair, Script(*steps))

    seen = await wire.create(model=model, stream=stream)

    if seen.status == 200:
        assert seen.ending["type"] == "response.failed"
    else:
        assert seen.error["message"]
    assert sum(asked(pair, model)) == times


async def test_a_stream_that_failed_before_its_first_delta_is_seen_whole(
    pair: list[ScriptedModel], wire: Wire
) -> None:
    """R1, R4: one stream, and no trace of the first attempt."""
    model = plays(pair, Script(ANSWER))
    with failing_first(pair, Script(ANSWER[:4], Cut())):
        seen = await wire.stream(model)

    assert seen.ending["type"] == "response.completed"
    assert seen.text == "Hello"
    assert sorted(asked(pair, model)) == [0, 2]


async def test_in_the_background_a_stream_that_failed_later_is_begun_anew(
    pair: list[ScriptedModel], served: Stack, wire: Wire
) -> None:
    """R4, P4: one log, the first attempt closed in it; the same server was asked once for each."""
    model = plays(pair, Script(ANSWER))
    with failing_first(pair, Script(ANSWER[:6], Cut())):
        seen = await wire.create(model=model, stream=True, background=True)

    [*_, last] = check_stream(bytes(seen.raw), taken_over=True)
    statuses = [item["status"] for item in last["response"]["output"]]
    assert (last["type"], statuses) == ("response.completed", ["incomplete", "completed"])
    assert sorted(asked(pair, model)) == [0, 2]
    assert (await wire.get(last["response"]["id"])).json == last["response"]
    assert any("a turn is asked for again" in line for line in served.said)


async def test_in_the_background_it_is_begun_three_times_at_most(
    pair: list[ScriptedModel], wire: Wire
) -> None:
    """R1: then the response has failed, and says so."""
    model = plays(pair, Script(ANSWER[:6], Cut()))

    queued = await wire.create(model=model, background=True, stream=False)
    response_id = queued.json["id"]

    async def over() -> bool:
        return bool((await wire.get(response_id)).json["status"] == "failed")

    await eventually(over)
    assert sum(asked(pair, model)) == 3


async def converse(wire: Wire, model: str, turns: int, previous: str | None = None) -> str:
    """Go on with a conversation and return the id of its last response."""
    for number in range(turns):
        seen = await wire.stream(model, input=f"turn {number}", previous_response_id=previous)
        assert seen.ending["type"] == "response.completed"
        previous = seen.response["id"]
    assert previous is not None
    return previous


async def test_the_turns_of_a_conversation_reach_one_server_and_move_when_it_dies(
    pair: list[ScriptedModel], wire: Wire
) -> None:
    """Promise 5, M9: each of ten conversations at one server; then all of them at the other."""
    models = [plays(pair, say(text("Hel", "lo"))) for _ in range(10)]
    # Each begins otherwise: conversations that begin alike belong to one server.
    begun = await asyncio.gather(
        *(wire.stream(model, input=f"conversation {model}") for model in models)
    )
    ids = [seen.response["id"] for seen in begun]

    tips = [await converse(wire, m, 3, p) for m, p in zip(models, ids, strict=True)]

    counts = [asked(pair, model) for model in models]
    assert sorted(map(sorted, counts)) == [[0, 4]] * 10
    assert {count.index(4) for count in counts} == {0, 1}
    await pair[0].stop()
    before = asked(pair[:1], "")
    await asyncio.gather(*(converse(wire, m, 2, p) for m, p in zip(models, tips, strict=True)))
    assert asked(pair[:1], "") == before
    assert [asked(pair, model)[1] for model in models] == [count[1] + 2 for count in counts]
