"""Turns that build on each other, through Envoy and through whichever worker comes."""

from __future__ import annotations

import asyncio
import itertools
from typing import Any

import openai
import pytest

from tests.support import replies
from tests.support.fix_stack import ALL_WAYS
from tests.support.replies import call, say, text
from tests.support.scripts import Hold
from tests.support.stack import Stack
from tests.support.wire import Wire

Doors = tuple[Wire, Wire]


def texts(items: list[Any]) -> list[str]:
    return [item["content"] for item in items]


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
async def test_the_next_turn_works_at_once_and_through_the_other_worker(
    stack: Stack, doors: Doors, stream: bool
) -> None:
    """M1: 0 ms after the terminal event, ten times, each turn by the worker that did not run the last."""
    model = stack.plays(say(text("ok")))
    previous: str | None = None
    for number, door in zip(range(10), itertools.cycle(doors)):
        given: dict[str, Any] = {} if previous is None else {"previous_response_id": previous}
        if stream:
            # Not even the end of the body is waited for.
            async with door.open(model=model, input=f"turn {number}", **given) as reading:
                previous = (await reading.until("response.completed"))["response"]["id"]
        else:
            seen = await door.create(model=model, input=f"turn {number}", stream=False, **given)
            assert seen.status == 200
            previous = seen.json["id"]

    sent = (await stack.asks(model, 10)).json["input"]
    assert texts(sent) == [
        word for number in range(10) for word in (f"turn {number}", "ok")
    ][:-1]  # fmt: skip


async def test_a_stored_response_is_everywhere(stack: Stack, doors: Doors) -> None:
    """M1, R3: the other worker shows it, lists its input and deletes it."""
    model = stack.plays(say(text("ok")))
    made = await doors[0].stream(model)

    other = await doors[1].get(made.response["id"])
    items = await doors[1].ask("GET", f"/v1/responses/{other.json['id']}/input_items")
    deleted = await doors[1].ask("DELETE", f"/v1/responses/{other.json['id']}")

    assert other.json == made.response
    assert items.json["data"][0]["content"] == [{"type": "input_text", "text": "hi"}]
    assert deleted.json == {"id": other.json["id"], "object": "response", "deleted": True}
    assert (await doors[0].get(other.json["id"])).status == 404


@ALL_WAYS
async def test_branches_do_not_see_each_other(stack: Stack, client: openai.AsyncOpenAI) -> None:
    """M10: continued twice at the same time, and each branch continued again."""
    model = stack.plays(say(text("ok")))
    root = await client.responses.create(model=model, input="root")

    async def branch(name: str) -> list[str]:
        previous = root.id
        last = ""
        for turn in (1, 2):
            last = stack.plays(say(text(f"re {name}{turn}")))
            made = await client.responses.create(
                model=last, input=f"{name}{turn}", previous_response_id=previous
            )
            previous = made.id
        return texts((await stack.asks(last)).json["input"])

    left, right, third = await asyncio.gather(branch("a"), branch("b"), branch("c"))

    assert left == ["root", "ok", "a1", "re a1", "a2"]
    assert right == ["root", "ok", "b1", "re b1", "b2"]
    assert third == ["root", "ok", "c1", "re c1", "c2"]


@ALL_WAYS
async def test_a_shared_history_is_sent_in_the_same_bytes(
    stack: Stack, client: openai.AsyncOpenAI
) -> None:
    """M9: what the next turn sends begins with what this turn sent, up to the end of its input."""
    model = stack.plays(say(text("Grüße"), call("f", '{"a": 1}', call_id="call_1")))
    tools: Any = [{"type": "function", "name": "f", "parameters": {"type": "object"}}]
    one = await client.responses.create(model=model, input="hi", instructions="x", tools=tools)
    [pending] = [item for item in one.output if item.type == "function_call"]
    await client.responses.create(
        model=model,
        input=[{"type": "function_call_output", "call_id": pending.call_id, "output": "1"}],
        previous_response_id=one.id,
        instructions="x",
        tools=tools,
    )

    first, second = stack.asked(model)
    assert second.body.startswith(first.body.removesuffix(b"]}") + b",")


@ALL_WAYS
@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
async def test_an_unknown_previous_response_is_refused_before_any_byte(
    stack: Stack, wire: Wire, stream: bool
) -> None:
    """M3: 400 with `param`, also for a stream; the model is not asked."""
    model = stack.plays(say(text("never")))

    seen = await wire.create(
        model=model, stream=stream, previous_response_id="resp_00000000000000000000000000000000"
    )

    assert seen.status == 400
    assert seen.error["code"] == "previous_response_not_found"
    assert seen.error["param"] == "previous_response_id"
    assert stack.asked(model) == []


@ALL_WAYS
async def test_a_response_that_still_runs_cannot_be_continued(stack: Stack, wire: Wire) -> None:
    """M3: its history is not there yet, and that is said."""
    gate = asyncio.Event()
    answer = replies.stream(text("Hel", "lo"))
    model = stack.plays(answer[:-1], Hold(gate), answer[-1:])

    async with wire.open(model=model) as reading:
        running = (await reading.until("response.created"))["response"]["id"]
        refused = await wire.create(model=model, stream=False, previous_response_id=running)
        shown = await wire.get(running)
        gate.set()
        await reading.rest()

    assert refused.status == 400
    assert refused.error["code"] == "previous_response_not_finished"
    assert shown.json["status"] == "in_progress"
    assert reading.ending["type"] == "response.completed"


@ALL_WAYS
async def test_stored_items_can_be_referred_to(stack: Stack, client: openai.AsyncOpenAI) -> None:
    """M8: `item_reference` stands for the item, by the id that the stream gave it."""
    model = stack.plays(say(text("The answer is 42.")))
    one = await client.responses.create(model=model, input="?")

    await client.responses.create(
        model=model,
        input=[
            {"type": "item_reference", "id": one.output[0].id or ""},
            {"role": "user", "content": "Are you sure?"},
        ],
    )

    assert texts((await stack.asks(model, 2)).json["input"]) == [
        "The answer is 42.",
        "Are you sure?",
    ]
