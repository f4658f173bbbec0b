"""Responses in the background, as a client of the official SDK uses them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

import openai
import pytest
from openai.types.responses import Response

from tests.support import replies
from tests.support.replies import say, text
from tests.support.scripts import Hold
from tests.support.stack import Stack, eventually
from tests.support.stream_rules import check_response
from tests.support.wire import Wire

ANSWER = replies.stream(text("Hel", "lo"))


async def ended(client: openai.AsyncOpenAI, response_id: str) -> Response:
    """Poll a response until it has ended."""
    seen: list[Response] = []

    async def over() -> bool:
        seen[:] = [await client.responses.retrieve(response_id)]
        return seen[0].status not in ("queued", "in_progress")

    await eventually(over)
    return seen[0]


async def test_it_is_created_polled_and_continued(stack: Stack, client: openai.AsyncOpenAI) -> None:
    """P3, M2: queued at once, completed later, and a turn like any other."""
    gate = asyncio.Event()
    model = stack.plays(Hold(gate), ANSWER)
    queued = await client.responses.create(model=model, input="hi", background=True)
    assert queued.status in ("queued", "in_progress")
    assert queued.background
    await stack.asks(model)
    assert (await client.responses.retrieve(queued.id)).status == "in_progress"
    gate.set()

    response = await ended(client, queued.id)

    assert (response.status, response.output_text) == ("completed", "Hello")
    after = stack.plays(say(text("ok")))
    await client.responses.create(model=after, input="and?", previous_response_id=queued.id)
    sent = stack.asked(after)[0].json["input"]
    assert [item["content"] for item in sent] == ["hi", "Hello", "and?"]


async def test_its_stream_has_all_events(stack: Stack, client: openai.AsyncOpenAI) -> None:
    """R2: with `response.queued` behind the first."""
    model = stack.plays(say(text("Hel", "lo")))
    stream = await client.responses.create(model=model, input="hi", background=True, stream=True)
    events = [event async for event in stream]
    assert [event.type for event in events[:3]] == [
        "response.created",
        "response.queued",
        "response.in_progress",
    ]
    assert [event.sequence_number for event in events] == list(range(len(events)))
    last = events[-1]
    assert last.type == "response.completed"
    assert last.response == await client.responses.retrieve(last.response.id)


async def test_its_stream_keeps_the_rules(stack: Stack, wire: Wire) -> None:
    """R1-R7: like every stream."""
    seen = await wire.stream(stack.plays(say(text("Hel", "lo"))), background=True)
    assert seen.response["output"][0]["content"][0]["text"] == "Hello"
    check_response(seen.response)


@pytest.mark.parametrize("stream", [True, False], ids=["stream", "whole"])
async def test_it_is_cancelled_through_the_other_worker(
    stack: Stack,
    doors: tuple[Wire, Wire],
    stream: bool,
    record_property: Callable[[str, object], None],
) -> None:
    """The model's call is aborted soon; the response is cancelled, for whoever asks."""
    model = stack.plays(ANSWER[:5], Hold(asyncio.Event()))
    async with doors[0].open(model=model, background=True, stream=stream) as reading:
        if stream:
            response_id = (await reading.until("response.created"))["response"]["id"]
        else:
            await reading.rest()
            response_id = reading.json["id"]
        received = await stack.asks(model)
        # Whichever runs it, one of the two doors is another worker's.
        asked = time.monotonic()
        path = f"/v1/responses/{response_id}/cancel"
        cancelled = await doors[1].ask("POST", path)
        await received.wait_aborted()
        record_property("seconds until the model's call was aborted", time.monotonic() - asked)
        assert (cancelled.status, cancelled.json["status"]) == (200, "cancelled")
        again = await doors[0].ask("POST", path)
        assert again.json == cancelled.json
        if stream:
            await reading.rest()
            assert reading.events[-1]["response"] == cancelled.json
    assert (await doors[0].get(response_id)).json == cancelled.json


async def test_what_is_not_stored_cannot_run_in_the_background(
    client: openai.AsyncOpenAI,
) -> None:
    """H1: 400 with `param`, by the SDK's own error."""
    with pytest.raises(openai.BadRequestError) as refused:
        await client.responses.create(model="m", input="hi", background=True, store=False)
    assert refused.value.param == "background"


async def test_it_cannot_be_continued_while_it_runs(
    stack: Stack, client: openai.AsyncOpenAI
) -> None:
    """M2: 400; its output is not there yet."""
    gate = asyncio.Event()
    model = stack.plays(Hold(gate), ANSWER)
    queued = await client.responses.create(model=model, input="hi", background=True)
    with pytest.raises(openai.BadRequestError) as refused:
        await client.responses.create(model=model, input="x", previous_response_id=queued.id)
    assert refused.value.param == "previous_response_id"
    gate.set()
    assert (await ended(client, queued.id)).status == "completed"


async def test_a_model_that_refuses_is_told_by_the_response(
    stack: Stack, client: openai.AsyncOpenAI
) -> None:
    """R12: its client was answered before the model was asked."""
    model = stack.plays(replies.bad_request())
    queued = await client.responses.create(model=model, input="hi", background=True)
    response = await ended(client, queued.id)
    assert response.status == "failed"
    assert response.error is not None
    assert response.error.message


async def test_many_run_over_both_workers(stack: Stack, client: openai.AsyncOpenAI) -> None:
    """X5: more than all workers have room for; each runs once and to its end."""
    model = stack.plays(say(text("Hel", "lo")))
    queued = await asyncio.gather(
        *(
            client.responses.create(model=model, input="hi", background=True)
            for _ in range(3 * stack.settings.background.concurrency)
        )
    )
    for each in queued:
        assert (await ended(client, each.id)).output_text == "Hello"
    assert len(stack.asked(model)) == len(queued)
