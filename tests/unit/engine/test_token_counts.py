"""`POST /v1/responses/input_tokens`: the whole context of a response, counted (rules H1, X1)."""

from __future__ import annotations

import json
from typing import Any

import pytest

from engine.answers import Answer, error_answer
from engine.errors import EngineError
from engine.intake import Caller
from tests.support import replies
from tests.support.counting_model import CountingModel, words, words_of
from tests.support.engine_rig import CALLER, Rig, final
from tests.support.fake_model import FakeModel, frames_of
from tests.support.fake_tools import FakeProvider
from tests.support.replies import text

DONE = frames_of(replies.stream(text("ok")))


async def count(rig: Rig, caller: Caller = CALLER, **fields: Any) -> Answer:
    body = json.dumps({"model": "m", **fields}).encode()
    try:
        return await rig.counts.count(caller, body, "")
    except EngineError as error:
        return error_answer(error)


async def test_history_instructions_and_input_count() -> None:
    """M2: what is counted is what the first turn of a response is sent; nothing is stored."""
    model = CountingModel(*DONE)
    rig = Rig(model)
    first = final(await rig.stream(input=words(20)))
    answer = await count(
        rig, previous_response_id=first["id"], instructions="be kind", input=words(7)
    )
    [asked] = model.counted
    assert [message["role"] for message in asked["messages"]] == [
        "system", "user", "assistant", "user",
    ]  # fmt: skip
    told = {"object": "response.input_tokens", "input_tokens": words_of(asked["messages"])}
    assert json.loads(answer.body) == told
    assert len(await rig.stored()) == 1


async def test_a_conversation_counts() -> None:
    """Also without any input."""
    model = CountingModel(*DONE)
    rig = Rig(model)
    items = json.dumps({"items": [{"role": "user", "content": words(9)}]}).encode()
    made = json.loads((await rig.conversations.create(CALLER, items, "")).body)["id"]
    assert (await count(rig, conversation=made)).status == 200
    assert model.counted[0]["messages"] == [{"role": "user", "content": words(9)}]


async def test_tools_count_the_gateways_too() -> None:
    """The gateway's own are listed, and counted as the functions that the model is shown."""
    model = CountingModel(*DONE)
    rig = Rig(model, providers=lambda *_: FakeProvider("s", "theirs"))
    tools = [
        {"type": "function", "name": "mine"},
        {"type": "mcp", "server_label": "s", "server_url": "https://mcp.example.com/"},
    ]
    assert (await count(rig, input="hi", tools=tools)).status == 200
    names = [tool["function"]["name"] for tool in model.counted[0]["tools"]]
    assert names == ["mine", "theirs"]


@pytest.mark.parametrize("model", [CountingModel(status=404), FakeModel(*DONE)])
async def test_a_server_that_counts_nothing_is_said_so(model: FakeModel) -> None:
    """H1."""
    answer = await count(Rig(model), input="hi")
    error = json.loads(answer.body)["error"]
    assert (answer.status, error["code"]) == (400, "unsupported_value")
    assert "/tokenize" in error["message"]


async def test_an_estimate_says_that_it_is_one() -> None:
    """H1: where the operator allows it; an image is not counted by its bytes."""
    rig = Rig(CountingModel(status=404), estimates=True)
    told = json.loads((await count(rig, input="x" * 4000)).body)
    assert told["estimated"] is True
    assert 1000 < told["input_tokens"] < 1100
    image = {"type": "input_image", "image_url": "data:image/png;base64," + "A" * 100_000}
    seen = json.loads((await count(rig, input=[{"role": "user", "content": [image]}])).body)
    assert 1000 < seen["input_tokens"] < 1100


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"model": None, "input": "hi"}, "model"),
        ({}, "input"),
        ({"input": "hi", "personality": "friendly"}, "personality"),
        ({"input": "hi", "stream": True}, "stream"),
        ({"input": "hi", "previous_response_id": "resp_no"}, "previous_response_id"),
        ({"conversation": "c", "previous_response_id": "r"}, "previous_response_id"),
    ],
)
async def test_what_it_is_refused_for(fields: dict[str, Any], param: str) -> None:
    """H1, M3."""
    answer = await count(Rig(CountingModel()), **fields)
    assert (answer.status, json.loads(answer.body)["error"]["param"]) == (400, param)
