"""Streams that are resumed: whoever left goes on where he was, at any worker (rule P6)."""

from __future__ import annotations

import asyncio
import random

import openai
import pytest

from tests.support import replies
from tests.support.fix_stack import BOTH_ENVOYS
from tests.support.replies import say, text
from tests.support.scripts import Hold, Pace
from tests.support.stack import Stack, eventually
from tests.support.stream_rules import check_stream, response_of
from tests.support.wire import Wire

pytestmark = BOTH_ENVOYS

WORDS = [f"word{number} " for number in range(20)]
ANSWER = replies.stream(text(*WORDS))
# created, in_progress, item and part added, the words, and four that close them.
ALL = 4 + len(WORDS) + 4


async def completed(wire: Wire, response_id: str) -> None:
    """Wait until a response is stored as completed."""

    async def is_completed() -> bool:
        return bool((await wire.get(response_id)).json["status"] == "completed")

    await eventually(is_completed)


@pytest.mark.parametrize("seen", [0, 1, 5, ALL - 1])
async def test_who_left_after_so_many_events_resumes_at_the_other_worker(
    stack: Stack, doors: tuple[Wire, Wire], seen: int
) -> None:
    """P3, P6: the response completes; the rest is byte for byte what the uncut stream has behind the cut."""
    here, there = doors
    gate = asyncio.Event()
    model = stack.plays(ANSWER[:12], Hold(gate), ANSWER[12:])
    if seen > 12:
        gate.set()
    async with here.open(model=model) as reading:
        # Whoever saw nothing still has to know the id; here it is read and forgotten.
        await reading.until_events(max(seen, 1))
    kept = reading.logged[:seen]
    response_id = reading.events[0]["response"]["id"]
    gate.set()

    resumed = await there.resume(response_id, seen - 1 if seen else None)

    uncut = await here.resume(response_id)
    assert uncut.clean
    assert resumed.clean
    assert [*kept, *resumed.logged] == uncut.logged
    response = uncut.response
    assert len(uncut.logged) == ALL
    assert response == (await here.get(response_id)).json
    after = stack.plays(say(text("ok")))
    more = await there.create(model=after, stream=False, previous_response_id=response_id)
    assert more.status == 200
    assert stack.asked(after)[0].json["input"][1]["content"] == "".join(WORDS)


async def test_the_stream_that_was_never_cut_is_the_one_that_is_replayed(
    stack: Stack, doors: tuple[Wire, Wire]
) -> None:
    """P6: byte for byte, comments aside, at both workers."""
    model = stack.plays(say(text(*WORDS)))
    live = await doors[0].stream(model)
    response_id = live.response["id"]
    for wire in doors:
        replayed = await wire.resume(response_id)
        assert replayed.logged == live.logged
        assert replayed.headers["content-type"].startswith("text/event-stream")


async def test_a_running_stream_is_followed_live(stack: Stack, doors: tuple[Wire, Wire]) -> None:
    """P6: what is there comes at once, the rest as it is made."""
    gate = asyncio.Event()
    model = stack.plays(ANSWER[:12], Hold(gate), ANSWER[12:])
    async with doors[0].open(model=model) as reading:
        created = await reading.until("response.created")
        async with doors[1].follow(created["response"]["id"]) as following:
            await following.until("response.output_text.delta", 3)
            assert "response.completed" not in following.kinds
            gate.set()
            await following.rest()
        await reading.rest()
    assert following.response == reading.response
    assert following.logged == reading.logged


async def test_fifty_resume_one_running_stream_anywhere(
    stack: Stack, doors: tuple[Wire, Wire]
) -> None:
    """P6: at random places, over two workers: no gap, no duplicate, for none of them."""
    randomly = random.Random(50)
    long = replies.stream(text(*[f"{number} " for number in range(150)]))
    model = stack.plays(Pace(long, 0.01))
    async with doors[0].open(model=model) as reading:
        created = await reading.until("response.created")
        response_id = created["response"]["id"]
        places = [randomly.randint(0, 140) for _ in range(50)]
        async with asyncio.TaskGroup() as group:
            tasks = [
                group.create_task(doors[number % 2].resume(response_id, place, timeout=60))
                for number, place in enumerate(places)
            ]
            await reading.rest(60)
    whole = reading.logged
    assert reading.response["status"] == "completed"
    for place, task in zip(places, tasks, strict=True):
        seen = task.result()
        assert seen.clean
        assert seen.frames[-1] == b"data: [DONE]"
        assert seen.logged == whole[place + 1 :]


async def test_an_ended_stream_is_resumed_at_any_place(stack: Stack, wire: Wire) -> None:
    """P6: long after; at its end and beyond it there is nothing left."""
    live = await wire.stream(stack.plays(say(text(*WORDS))))
    response_id = live.response["id"]
    for place in range(ALL):
        seen = await wire.resume(response_id, place)
        assert seen.logged == live.logged[place + 1 :]
        assert seen.frames[-1] == b"data: [DONE]"
    beyond = await wire.resume(response_id, ALL + 5)
    assert beyond.frames == [b"data: [DONE]"]


async def test_the_sdk_resumes(stack: Stack, client: openai.AsyncOpenAI) -> None:
    """P6: by `retrieve` with `stream` and `starting_after`."""
    made = await client.responses.create(
        model=stack.plays(say(text(*WORDS))), input="hi", stream=True
    )
    events = [event async for event in made]
    first = events[0]
    assert first.type == "response.created"
    resumed = await client.responses.retrieve(first.response.id, stream=True, starting_after=6)
    assert [event async for event in resumed] == events[7:]


async def test_what_cannot_be_resumed_says_why(stack: Stack, wire: Wire) -> None:
    """H1, X1: 404 for what is not there, 400 with `param` for what cannot be read."""
    whole = (await wire.create(model=stack.plays(say(text("a"))), stream=False)).json
    assert (await wire.resume("resp_x")).status == 404
    refused = await wire.resume(whole["id"])
    assert (refused.status, refused.error["param"]) == (400, "stream")
    path = f"/v1/responses/{whole['id']}"
    for query, param in (
        ("starting_after=1", "starting_after"),
        ("stream=true&starting_after=-1", "starting_after"),
        ("stream=true&starting_after=x", "starting_after"),
        ("stream=yes", "stream"),
    ):
        refused = await wire.ask("GET", f"{path}?{query}")
        assert (refused.status, refused.error["param"]) == (400, param)


async def test_a_response_that_is_deleted_ends_its_followers(
    stack: Stack, doors: tuple[Wire, Wire]
) -> None:
    """P7: by an error event; the stream is no success and no failure of the response."""
    gate = asyncio.Event()
    model = stack.plays(ANSWER[:12], Hold(gate), ANSWER[12:])
    async with doors[0].open(model=model) as reading:
        created = await reading.until("response.created")
        async with doors[1].follow(created["response"]["id"]) as following:
            await following.until("response.output_text.delta")
            await doors[0].ask("DELETE", f"/v1/responses/{created['response']['id']}")
            await following.rest()
    gate.set()
    assert following.clean
    assert following.events[-1]["type"] == "error"
    assert following.events[-1]["code"] == "not_found"
    assert b"data: [DONE]" not in following.frames


async def test_a_stream_of_a_background_response_survives_its_reader(
    stack: Stack, doors: tuple[Wire, Wire]
) -> None:
    """P3, P6: left, and read to the end at the other worker."""
    gate = asyncio.Event()
    model = stack.plays(ANSWER[:12], Hold(gate), ANSWER[12:])
    async with doors[0].open(model=model, background=True) as reading:
        await reading.until("response.output_text.delta")
    kept = reading.logged
    gate.set()
    rest = await doors[1].resume(reading.events[0]["response"]["id"], len(kept) - 1)
    raw = b"".join(frame + b"\n\n" for frame in [*kept, *rest.logged, b"data: [DONE]"])
    events = check_stream(raw)
    assert response_of(events)["status"] == "completed"
    await completed(doors[0], response_of(events)["id"])
