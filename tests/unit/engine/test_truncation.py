"""`truncation: auto`: what is left out where a conversation is longer than the model's context."""

from __future__ import annotations

from typing import Any

import pytest

from engine.context.rounds import in_rounds
from tests.support import replies
from tests.support.counting_model import CountingModel, inputs, words
from tests.support.engine_rig import Rig, final
from tests.support.fake_model import JSON, FakeModel, Head, frames_of
from tests.support.replies import text

DONE = frames_of(replies.stream(text("ok")))
CUT: dict[str, Any] = {"truncation": "auto"}


async def test_the_oldest_rounds_are_left_out() -> None:
    """M2: instructions and the newest round stay; the response says what was asked for."""
    model = CountingModel(*DONE)
    rig = Rig(model)
    previous: dict[str, Any] = {}
    response: dict[str, Any] = {}
    for number in range(6):
        given = [{"role": "user", "content": words(40, f"w{number}")}]
        if not number:
            given = [{"role": "system", "content": "be kind"}, *given]
        response = final(await rig.stream(input=given, **previous, **CUT))
        previous = {"previous_response_id": response["id"]}
    sent = inputs(rig.model)

    assert response["truncation"] == "auto"
    assert sent[0] == {"role": "system", "content": "be kind"}
    assert sent[-1]["content"] == words(40, "w5")
    kept = [item["content"].split()[0] for item in sent if item["role"] == "user"]
    assert kept == ["w3", "w4", "w5"]
    # All of it is stored: it is the model that is sent less.
    page = await rig.store.load_context("default", response["id"])
    assert page is not None
    assert len(page.items) == 13


async def test_nothing_is_counted_where_nothing_may_be_cut() -> None:
    """`disabled` is the default."""
    model = CountingModel(*DONE)
    rig = Rig(model)
    await rig.create(input=words(400))
    await rig.create(input=words(400), truncation="disabled")
    assert model.counted == []


async def test_tools_and_instructions_count() -> None:
    """The server's template is what decides."""
    model = CountingModel(*DONE)
    tool = {"type": "function", "name": "f"}
    await Rig(model).create(instructions=words(10), tools=[tool], **CUT)
    [asked] = model.counted
    assert set(asked) == {"model", "messages", "tools"}
    assert asked["messages"][0] == {"role": "system", "content": words(10)}


@pytest.mark.parametrize(("fields", "room"), [({}, 150), ({"max_output_tokens": 100}, 60)])
async def test_there_is_room_for_the_answer(fields: dict[str, Any], room: int) -> None:
    """A newest input that is too long by itself is a 400."""
    rig = Rig(CountingModel(*DONE))
    # A message has words of its own.
    fits = await rig.create(input=words(room - 3), **fields, **CUT)
    over = await rig.create(input=words(room - 2), **fields, **CUT)
    assert fits.whole is not None
    assert over.whole is not None
    assert (fits.whole.status, over.whole.status) == (200, 400)
    error = over.json["error"]
    assert (error["param"], error["code"]) == ("input", "context_length_exceeded")
    assert f"room for {room} " in error["message"]


@pytest.mark.parametrize("model", [CountingModel(status=404), FakeModel(Head(200, JSON), b"{}")])
async def test_a_server_that_counts_nothing_cannot_do_it(model: FakeModel) -> None:
    """H1."""
    reply = await Rig(model).create(**CUT)
    assert reply.whole is not None
    assert (reply.whole.status, reply.json["error"]["param"]) == (400, "truncation")


async def test_what_waited_in_the_queue_is_cut_when_its_time_comes() -> None:
    """`background: true`; the server is asked once for each length that is tried."""
    model = CountingModel(*DONE)
    rig = Rig(model)
    first = final(await rig.stream(input=words(100)))
    reply = await rig.create(
        background=True, input=words(60, "v"), previous_response_id=first["id"], **CUT
    )
    assert model.counted == []
    rig.background.start()
    await rig.becomes(reply.json["id"], "completed")
    await rig.background.stop()
    assert inputs(rig.model) == [{"role": "user", "content": words(60, "v")}]
    assert [len(asked["messages"]) for asked in model.counted] == [3, 1]


def test_calls_and_outputs_stay_together() -> None:
    """M4, M6: also where a user's message came between them, or one item is replayed as both."""
    items = [
        b'{"role":"developer","content":"d"}',
        b'{"role":"user","content":"a"}',
        b'{"type":"function_call","call_id":"1","name":"f","arguments":"{}"}',
        b'{"role":"user","content":"b"}',
        b'{"type":"function_call_output","call_id":"1","output":"o"}',
        b'{"role":"user","content":"c"}',
        b'{"type":"function_call","call_id":"2","name":"f","arguments":"{}"},'
        b'{"type":"function_call_output","call_id":"2","output":"o"}',
        b'{"role":"user","content":"d"}',
    ]
    found = in_rounds(items)
    assert found.leading == items[:1]
    assert found.rounds == [items[1:5], items[5:7], items[7:]]
    assert found.without(1) == [items[0], *items[5:]]
    assert in_rounds([]).without(0) == []
