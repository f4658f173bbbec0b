"""Whole runs over chat completions: owned tools, refusals, whole answers, the queue and a takeover."""

from __future__ import annotations

import json
from typing import Any

import pytest

from engine.response.inputs import ItemStarted, TextDelta
from engine.upstream.choice import Choice
from engine.upstream.dialect import ChatDialect
from tests.support import replies
from tests.support.dead_worker import GONE, leave
from tests.support.engine_rig import Rig, final, small
from tests.support.fake_model import JSON, Break, FakeModel, Head, Step, frames_of
from tests.support.fake_tools import FakeProvider, FakeServers, server
from tests.support.faulty_store import FaultyStore
from tests.support.replies import call, reasoning, text
from tests.support.scripts import CHAT, Asked
from tests.support.stream_rules import check_stream

CHATTING = Choice("chat")
LOOK = {"type": "function", "name": "f"}


def turn(*parts: Any) -> list[Step]:
    return list(frames_of(replies.stream(*parts, input_tokens=7), path=CHAT))


def rig_of(*turns: list[Step], **options: Any) -> Rig:
    return Rig(FakeModel(*turn(text("done")), turns=turns), choice=CHATTING, **options)


def sent(rig: Rig, number: int) -> Any:
    """What the model was sent in a turn."""
    return json.loads(rig.model.bodies[number])


async def test_an_owned_call_is_run_and_the_model_goes_on() -> None:
    """T1, T4, M9: declared as a function, forced once, answered by a tool's message."""
    provider = FakeProvider("s", "look")
    rig = rig_of(
        turn(reasoning("why"), text("hm"), call("look", '{"a":', "1}")),
        providers=FakeServers(provider),
    )
    events = await rig.stream(tools=[server("s")], tool_choice="required")
    response = final(events)
    first, second = sent(rig, 0), sent(rig, 1)

    kinds = [item["type"] for item in response["output"]]
    assert kinds == ["mcp_list_tools", "reasoning", "message", "mcp_call", "message"]
    assert response["usage"]["input_tokens"] == 14
    assert provider.calls == [("look", b'{"a":1}')]
    assert rig.model.paths == [ChatDialect.path] * 2
    assert [tool["function"]["name"] for tool in first["tools"]] == ["look"]
    assert (first["tool_choice"], "tool_choice" in second) == ("required", False)
    said, told = second["messages"][len(first["messages"]) :]
    [asked] = said["tool_calls"]
    assert (said["content"], said["reasoning_content"]) == ("hm", "why")
    assert asked["function"] == {"name": "look", "arguments": '{"a":1}'}
    assert told == {"role": "tool", "tool_call_id": asked["id"], "content": 'look {"a":1}'}
    # The next response is told the same of it.
    await rig.stream(previous_response_id=response["id"], input="and?")
    assert sent(rig, 2)["messages"][: len(second["messages"])] == second["messages"]


@pytest.mark.parametrize("stream", [False, True])
async def test_a_whole_answer_is_taken_where_a_stream_was_asked_for(stream: bool) -> None:
    """R14: items and usage are those of a stream."""
    whole = replies.body(text("hi"), call("f", "{}")).make(Asked(CHAT, {"model": "m"}, "seed"))
    rig = Rig(FakeModel(Head(200, JSON), whole), choice=CHATTING)
    await rig.create(stream=stream, tools=[LOOK])
    response = await rig.retrieve((await rig.the_stored()).id)
    assert [item["type"] for item in response["output"]] == ["message", "function_call"]
    assert response["usage"]["output_tokens"] > 0


@pytest.mark.parametrize(
    "body", [b"", b"{}", b"<html>", b'{"choices":[]}', b'{"object":"response"}']
)
async def test_an_answer_of_another_kind_is_a_failure(body: bytes) -> None:
    """R15: a 200 that is no completion, such as a proxy's page."""
    rig = Rig(FakeModel(Head(200, JSON), body), choice=CHATTING)
    reply = await rig.create()
    assert reply.whole is not None
    assert reply.whole.status == 502


async def test_a_refusal_is_the_clients_to_see() -> None:
    """R16: before any event, and in the words of the Responses API."""
    error = (
        b'{"error":{"message":"maximum context length is 5","type":"x","param":null,"code":400}}'
    )
    rig = Rig(FakeModel(Head(400), error), choice=CHATTING)
    reply = await rig.create(stream=True)
    assert reply.whole is not None
    assert reply.whole.status == 400
    assert (reply.json["error"]["code"], reply.json["error"]["param"]) == (
        "context_length_exceeded",
        "input",
    )


async def test_a_stream_that_breaks_off_keeps_what_was_made() -> None:
    """R1: no finish reason came."""
    rig = rig_of([*turn(text("a", "b"))[:2], Break()])
    response = final(await rig.stream())
    assert response["status"] == "failed"
    assert response["output"][0]["content"][0]["text"] == "a"


async def test_a_response_of_the_queue_is_asked_in_chat_too() -> None:
    """`background: true`."""
    rig = rig_of()
    reply = await rig.create(background=True)
    rig.background.start()
    response = await rig.becomes(reply.json["id"], "completed")
    await rig.background.stop()
    assert response["output"][0]["content"][0]["text"] == "done"
    assert rig.model.paths == [ChatDialect.path]


async def test_what_a_dead_worker_left_is_run_again_in_chat() -> None:
    """P4: one stream over two workers and two calls of the model."""
    store = FaultyStore()
    gone = Rig(FakeModel(), store=store, limits=small(lease=GONE), worker="replica/1#1")
    lease = await leave(gone, ItemStarted("message"), TextDelta("a"), background=True, stream=True)
    rig = rig_of(store=store, limits=small(lease=0.04))
    rig.recovery.start()
    response = await rig.becomes(lease.response_id, "completed")
    await rig.recovery.stop()
    check_stream(await rig.log(lease.response_id), taken_over=True)
    assert [item["content"][0]["text"] for item in response["output"]] == ["a", "done"]
    assert rig.model.paths == [ChatDialect.path]
    assert sent(rig, 0)["messages"] == [{"role": "user", "content": "hi"}]
