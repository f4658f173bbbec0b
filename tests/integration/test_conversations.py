"""Conversations through Envoy, as the official SDK uses them, and many turns at once over two workers."""

from __future__ import annotations

import asyncio
import base64
import itertools
import json
import os
import signal
from typing import Any

import openai
import pytest
from openai.types.conversations import Message
from openai.types.responses import EasyInputMessageParam

from tests.support import replies
from tests.support.fix_stack import BOTH_WAYS
from tests.support.replies import call, say, text
from tests.support.scripts import Cut, Hold, Script
from tests.support.stack import Stack, eventually
from tests.support.wire import Wire

PIXEL = "data:image/png;base64," + base64.b64encode(b"\x89PNG not really").decode()
WEATHER: Any = {
    "type": "function",
    "name": "get_weather",
    "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
    "strict": True,
}


def say_so(content: str) -> EasyInputMessageParam:
    """Return a message of a user's."""
    return {"type": "message", "role": "user", "content": content}


async def items_of(client: openai.AsyncOpenAI, name: str) -> list[Any]:
    """Return the items of a conversation, oldest first, page by page."""
    return [item async for item in client.conversations.items.list(name, order="asc", limit=3)]


async def words(client: openai.AsyncOpenAI, name: str) -> list[str]:
    """Return what was said in a conversation."""
    return [item.content[0].text for item in await items_of(client, name)]


@BOTH_WAYS
async def test_every_method_on_conversations(client: openai.AsyncOpenAI) -> None:
    """H2: create, retrieve, update, delete; the SDK's own model of each."""
    made = await client.conversations.create(metadata={"topic": "a"}, items=[say_so("hi")])
    assert (made.object, made.metadata) == ("conversation", {"topic": "a"})
    assert await client.conversations.retrieve(made.id) == made
    changed = await client.conversations.update(made.id, metadata={"b": "c"})
    assert (changed.id, changed.metadata) == (made.id, {"b": "c"})
    gone = await client.conversations.delete(made.id)
    assert (gone.id, gone.deleted, gone.object) == (made.id, True, "conversation.deleted")
    with pytest.raises(openai.NotFoundError):
        await client.conversations.retrieve(made.id)
    assert (await client.conversations.create()).metadata == {}


@BOTH_WAYS
async def test_every_method_on_items(client: openai.AsyncOpenAI) -> None:
    """H2: create, list, retrieve, delete; `include` where the SDK sends it."""
    name = (await client.conversations.create()).id
    include: Any = ["message.input_image.image_url"]
    added = await client.conversations.items.create(
        name, items=[say_so(f"{n}") for n in range(7)], include=include
    )
    listed = await items_of(client, name)
    assert listed == added.data
    assert await words(client, name) == [f"{n}" for n in range(7)]
    newest = await client.conversations.items.list(name, limit=2, include=include)
    assert [item.id for item in newest.data] == [item.id for item in listed[:4:-1]]
    read = await client.conversations.items.retrieve(
        str(listed[3].id), conversation_id=name, include=include
    )
    assert read == listed[3]
    await client.conversations.items.delete(str(listed[3].id), conversation_id=name)
    assert await words(client, name) == ["0", "1", "2", "4", "5", "6"]
    with pytest.raises(openai.NotFoundError):
        await client.conversations.items.retrieve(str(listed[3].id), conversation_id=name)


async def test_the_synchronous_client_works_alike(sync_client: openai.OpenAI) -> None:
    """H2: as most programs use it."""

    def talk() -> list[str]:
        name = sync_client.conversations.create(items=[say_so("hi")]).id
        sync_client.conversations.items.create(name, items=[say_so("ho")])
        items = list(sync_client.conversations.items.list(name, order="asc"))
        sync_client.conversations.delete(name)
        return [item.content[0].text for item in items if isinstance(item, Message)]  # type: ignore[union-attr]

    assert await asyncio.to_thread(talk) == ["hi", "ho"]


@BOTH_WAYS
async def test_turns_of_all_kinds_build_on_each_other(
    stack: Stack, client: openai.AsyncOpenAI
) -> None:
    """M2, M7: whole, streamed, in the background, with a tool, by id and by object."""
    model = stack.plays(say(text("ok")))
    name = (await client.conversations.create(items=[say_so("zero")])).id
    whole = await client.responses.create(model=model, input="one", conversation=name)
    assert whole.conversation is not None
    assert whole.conversation.id == name
    async with client.responses.stream(
        model=model, input="two", conversation={"id": name}
    ) as stream:
        streamed = await stream.get_final_response()
    assert streamed.conversation == whole.conversation
    calling = stack.plays(say(call("get_weather", '{"city":"Rome"}')))
    asked = await client.responses.create(
        model=calling, input="three", conversation=name, tools=[WEATHER]
    )
    [wanted] = [item for item in asked.output if item.type == "function_call"]
    told: Any = {"type": "function_call_output", "call_id": wanted.call_id, "output": "sun"}
    queued = await client.responses.create(
        model=model, input=[told], conversation=name, tools=[WEATHER], background=True
    )
    assert queued.conversation == whole.conversation

    async def ended() -> bool:
        return (await client.responses.retrieve(queued.id)).status == "completed"

    await eventually(ended)
    kinds = [item.type for item in await items_of(client, name)]
    assert kinds == [*["message"] * 6, "function_call", "function_call_output", "message"]
    sent = (await stack.asks(model, 3)).json["input"]
    assert [item.get("content", item.get("type")) for item in sent] == [
        "zero", "one", "ok", "two", "ok", "three", "function_call", "function_call_output",
    ]  # fmt: skip


@BOTH_WAYS
async def test_a_conversation_is_changed_between_turns(
    stack: Stack, client: openai.AsyncOpenAI
) -> None:
    """M7: what was added is sent, what was deleted is not, and its response still shows it."""
    model = stack.plays(say(text("ok")))
    name = (await client.conversations.create()).id
    first = await client.responses.create(model=model, input="one", conversation=name)
    await client.conversations.items.create(name, items=[say_so("note")])
    await client.conversations.items.delete(str(first.output[0].id), conversation_id=name)
    await client.responses.create(model=model, input="two", conversation=name)
    sent = (await stack.asks(model, 2)).json["input"]
    assert [item["content"] for item in sent] == ["one", "note", "two"]
    assert await client.responses.retrieve(first.id) == first


@BOTH_WAYS
async def test_content_of_every_kind_comes_back_and_is_sent(
    stack: Stack, client: openai.AsyncOpenAI
) -> None:
    """M8: pictures, refusals, phases, lists as outputs; listed, added to another, and sent on."""
    parts: Any = [
        {"type": "input_text", "text": "look"},
        {"type": "input_image", "image_url": PIXEL, "detail": "low"},
    ]
    items: Any = [
        {"type": "message", "role": "user", "content": parts},
        {
            "type": "message",
            "role": "assistant",
            "id": "msg_a",
            "status": "completed",
            "phase": "commentary",
            "content": [{"type": "output_text", "text": "a dot", "annotations": []}],
        },
        {
            "type": "message",
            "role": "assistant",
            "id": "msg_b",
            "status": "completed",
            "content": [{"type": "refusal", "refusal": "no more"}],
        },
        {"type": "reasoning", "id": "rs_1", "summary": [{"type": "summary_text", "text": "hm"}]},
        {"type": "function_call", "call_id": "call_1", "name": "f", "arguments": "{}"},
        {"type": "function_call_output", "call_id": "call_1", "output": parts},
    ]
    first = (await client.conversations.create(items=items)).id
    listed = await items_of(client, first)
    again: Any = [item.model_dump(exclude_unset=True) for item in listed]
    second = (await client.conversations.create(items=again)).id
    assert await items_of(client, second) == listed

    model = stack.plays(say(text("ok")))
    await client.responses.create(model=model, input="and?", conversation=first)
    await client.responses.create(model=model, input="and?", conversation=second)
    one, two = stack.asked(model)
    assert one.body == two.body
    assert one.json["input"][0]["content"][1]["image_url"] == PIXEL
    assert [item.get("content") for item in one.json["input"][1:3]] == ["a dot", "no more"]


@BOTH_WAYS
async def test_a_shared_history_is_sent_in_the_same_bytes(
    stack: Stack, client: openai.AsyncOpenAI
) -> None:
    """M9: each turn's request begins with all of the one before but its end."""
    model = stack.plays(say(text("Grüße")))
    name = (await client.conversations.create()).id
    for number in range(6):
        await client.responses.create(model=model, input=f"turn {number}", conversation=name)
    asked = stack.asked(model)
    for before, after in itertools.pairwise(asked):
        assert after.body.startswith(before.body.removesuffix(b"]}") + b",")


@BOTH_WAYS
async def test_what_fails_leaves_the_conversation_as_it_was(
    stack: Stack, client: openai.AsyncOpenAI, wire: Wire
) -> None:
    """M7, R1: a stream that broke off, and what a model server refused."""
    good = stack.plays(say(text("ok")))
    broken = stack.plays(Script(replies.stream(text("never", "said"))[:5], Cut()))
    refused = stack.plays(replies.bad_request())
    name = (await client.conversations.create()).id
    await client.responses.create(model=good, input="one", conversation=name)
    seen = await wire.stream(broken, input="bad", conversation=name)
    assert seen.response["status"] == "failed"
    with pytest.raises(openai.BadRequestError):
        await client.responses.create(model=refused, input="bad", conversation=name)
    await client.responses.create(model=good, input="two", conversation=name)
    assert await words(client, name) == ["one", "ok", "two", "ok"]


@BOTH_WAYS
async def test_what_cannot_be_is_refused(stack: Stack, client: openai.AsyncOpenAI) -> None:
    """M3, H1: 404 for what is not there, 400 for two things at once; nothing is asked of a model."""
    model = stack.plays(say(text("ok")))
    with pytest.raises(openai.NotFoundError):
        await client.responses.create(model=model, input="hi", conversation="conv_none")
    with pytest.raises(openai.BadRequestError) as caught:
        await client.responses.create(
            model=model, input="hi", conversation="conv_none", previous_response_id="resp_none"
        )
    assert caught.value.param == "previous_response_id"
    assert not stack.asked(model)


async def test_a_continuation_of_a_turn_is_a_branch(
    stack: Stack, client: openai.AsyncOpenAI
) -> None:
    """M10: by previous_response_id; the conversation does not see it."""
    model = stack.plays(say(text("ok")))
    name = (await client.conversations.create()).id
    first = await client.responses.create(model=model, input="one", conversation=name)
    aside = await client.responses.create(model=model, input="aside", previous_response_id=first.id)
    assert aside.conversation is None
    await client.responses.create(model=model, input="two", conversation=name)
    assert await words(client, name) == ["one", "ok", "two", "ok"]
    sent = [[item["content"] for item in asked.json["input"]] for asked in stack.asked(model)]
    assert sent[1:] == [["one", "ok", "aside"], ["one", "ok", "two"]]


@pytest.mark.timeout(180)
@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
async def test_64_turns_at_once_over_two_workers(
    stack: Stack, doors: tuple[Wire, Wire], client: openai.AsyncOpenAI, stream: bool
) -> None:
    """M7: all in, in one order; each saw exactly what preceded it."""
    model = stack.plays(say(text("ok")))
    name = (await client.conversations.create()).id
    answers = await asyncio.gather(
        *(
            doors[n % 2].create(
                timeout=120, model=model, input=f"turn {n}", conversation=name, stream=stream
            )
            for n in range(64)
        )
    )
    assert [seen.status for seen in answers] == [200] * 64
    made = [seen.response if stream else seen.json for seen in answers]
    assert {response["status"] for response in made} == {"completed"}
    said = await words(client, name)
    assert sorted(said[::2]) == sorted(f"turn {n}" for n in range(64))
    assert said[1::2] == ["ok"] * 64
    asked = stack.asked(model)
    assert len(asked) == 64
    for received in asked:
        seen_then = [item["content"] for item in received.json["input"]]
        assert seen_then == said[: len(seen_then)]


@pytest.mark.timeout(120)
async def test_a_killed_worker_leaves_its_conversation_to_the_next_turn(
    rugged: Stack, rugged_wire: Wire
) -> None:
    """P4, M7: whoever waits gets its turn when the lease has run out; what was begun adds nothing."""
    held = rugged.plays(replies.stream(text("half", "way"))[:5], Hold(asyncio.Event()))
    good = rugged.plays(say(text("ok")))
    made = await rugged_wire.ask("POST", "/v1/conversations", json={})
    name = made.json["id"]
    async with rugged_wire.open(model=held, input="lost", conversation=name) as reading:
        await reading.until("response.output_text.delta")
        victim = next(
            n for n, running in enumerate(await rugged.running_by_worker(held)) if running
        )
        pid = rugged.worker(victim)
        waiting = asyncio.ensure_future(
            rugged_wire.create(60, model=good, input="next", conversation=name, stream=False)
        )
        os.kill(pid, signal.SIGKILL)
    await rugged.replaced(victim, pid)
    seen = await waiting
    if seen.status != 200:  # it waited in the worker that died
        seen = await rugged_wire.create(
            60, model=good, input="next", conversation=name, stream=False
        )
    assert seen.json["status"] == "completed", json.dumps(seen.json)
    items = await rugged_wire.ask("GET", f"/v1/conversations/{name}/items?order=asc")
    assert [item["content"][0]["text"] for item in items.json["data"]] == ["next", "ok"]
