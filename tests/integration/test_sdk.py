"""The official OpenAI SDK against the whole stack: what its users write has to work as it stands."""

from __future__ import annotations

import asyncio
import base64
import json
from typing import Any

import openai
import pytest
from openai.types.responses import FunctionToolParam, ResponseInputParam
from pydantic import BaseModel

from tests.support.fix_stack import EVERY_WAY
from tests.support.replies import call, reasoning, say, text
from tests.support.stack import Stack

pytestmark = EVERY_WAY

WEATHER: FunctionToolParam = {
    "type": "function",
    "name": "get_weather",
    "description": "Weather of a city.",
    "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
    "strict": True,
}
TIME: FunctionToolParam = {**WEATHER, "name": "get_time"}

PIXEL = "data:image/png;base64," + base64.b64encode(b"\x89PNG not really").decode()


class Point(BaseModel):
    """A structured answer."""

    x: int
    y: int


async def test_create_returns_the_whole_response(stack: Stack, client: openai.AsyncOpenAI) -> None:
    """R3, R10: one object, as the SDK's model of it, and the same again from the store."""
    model = stack.plays(say(text("Hel", "lo"), input_tokens=7))

    response = await client.responses.create(
        model=model, input="hi", metadata={"k": "v"}, temperature=0.5, user="u", top_p=0.9
    )

    assert response.output_text == "Hello"
    assert (response.status, response.model) == ("completed", model)
    assert (response.metadata, response.temperature, response.user) == ({"k": "v"}, 0.5, "u")
    assert response.usage is not None
    assert (response.usage.input_tokens, response.usage.total_tokens) == (7, 9)
    assert response.completed_at is not None
    assert await client.responses.retrieve(response.id) == response


async def test_the_synchronous_client_works_alike(stack: Stack, sync_client: openai.OpenAI) -> None:
    """R14: create, stream and the helper, by the client that most programs use."""
    model = stack.plays(say(text("Hel", "lo")))

    def talk() -> list[str]:
        whole = sync_client.responses.create(model=model, input="hi")
        with sync_client.responses.create(model=model, input="hi", stream=True) as events:
            kinds = [event.type for event in events]
        with sync_client.responses.stream(model=model, input="hi") as stream:
            stream.until_done()
            final = stream.get_final_response()
        return [whole.output_text, kinds[0], kinds[-1], final.output_text]

    told = await asyncio.to_thread(talk)

    assert told == ["Hello", "response.created", "response.completed", "Hello"]


async def test_a_stream_has_the_same_ids_as_the_stored_response(
    stack: Stack, client: openai.AsyncOpenAI
) -> None:
    """R3, R14: every event, the terminal object and GET speak of one response."""
    model = stack.plays(say(reasoning("think"), text("Hel", "lo")))

    events = await client.responses.create(model=model, input="hi", stream=True)
    seen: list[Any] = [event async for event in events]

    terminal = seen[-1].response
    assert {event.response.id for event in seen if hasattr(event, "response")} == {terminal.id}
    assert [event.sequence_number for event in seen] == list(range(len(seen)))
    assert await client.responses.retrieve(terminal.id) == terminal


async def test_the_stream_helper_accumulates_to_the_stored_response(
    stack: Stack, client: openai.AsyncOpenAI
) -> None:
    """R14: `responses.stream()`, a strict accumulator, accepts reasoning, text and calls."""
    model = stack.plays(
        say(reasoning("th", "ink"), text("Hel", "lo"), call("get_weather", '{"city": ', '"Paris"}'))
    )

    async with client.responses.stream(model=model, input="hi", tools=[WEATHER]) as stream:
        await stream.until_done()
        final = await stream.get_final_response()

    assert [item.type for item in final.output] == ["reasoning", "message", "function_call"]
    assert final.output_text == "Hello"
    stored = await client.responses.retrieve(final.id)
    parsed_by_sdk = {"parsed", "parsed_arguments"}
    assert _without(parsed_by_sdk, final.to_dict()["output"]) == stored.to_dict()["output"]


async def test_parallel_calls_are_answered_in_a_second_turn(
    stack: Stack, client: openai.AsyncOpenAI
) -> None:
    """M5, M6, R7: call ids of the stream are accepted, and the model gets calls and outputs paired."""
    first = stack.plays(
        say(call("get_weather", '{"city":', '"Rome"}'), call("get_time", '{"city":"Rome"}'))
    )
    second = stack.plays(say(text("Sunny at noon.")))

    stream = await client.responses.create(
        model=first, input="Rome?", tools=[WEATHER, TIME], stream=True
    )
    [done] = [event async for event in stream if event.type == "response.completed"]
    calls = [item for item in done.response.output if item.type == "function_call"]
    outputs: ResponseInputParam = [
        {"type": "function_call_output", "call_id": item.call_id, "output": f"{item.name}: ok"}
        for item in calls
    ]
    answer = await client.responses.create(
        model=second, input=outputs, previous_response_id=done.response.id, tools=[WEATHER, TIME]
    )

    assert answer.output_text == "Sunny at noon."
    assert [item.name for item in calls] == ["get_weather", "get_time"]
    sent = (await stack.asks(second)).json["input"]
    assert [item.get("type", "message") for item in sent] == [
        "message", "function_call", "function_call", "function_call_output", "function_call_output",
    ]  # fmt: skip
    assert [i["call_id"] for i in sent[1:3]] == [i["call_id"] for i in sent[3:5]]


@pytest.mark.parametrize(
    ("outputs", "code_or_word"),
    [
        ([], "call_"),
        (["call_unknown"], "call_unknown"),
        (["first", "first"], "call_"),
    ],
    ids=["missing", "unknown", "duplicate"],
)
async def test_outputs_have_to_match_the_pending_calls(
    stack: Stack, client: openai.AsyncOpenAI, outputs: list[str], code_or_word: str
) -> None:
    """M6: a missing, unknown or duplicate call_id is a 400, before the model is asked."""
    first = stack.plays(say(call("get_weather", "{}", call_id="call_pending")))
    second = stack.plays(say(text("never")))
    asked = await client.responses.create(model=first, input="?", tools=[WEATHER])
    [pending] = asked.output
    assert pending.type == "function_call"
    ids = [pending.call_id if name == "first" else name for name in outputs]
    given: ResponseInputParam = [{"role": "user", "content": "go on"}]
    given += [{"type": "function_call_output", "call_id": i, "output": "x"} for i in ids]

    with pytest.raises(openai.BadRequestError) as caught:
        await client.responses.create(model=second, input=given, previous_response_id=asked.id)

    assert code_or_word in caught.value.message
    assert caught.value.param is not None
    assert caught.value.param.startswith("input")
    assert stack.asked(second) == []


@pytest.mark.parametrize(
    ("choice", "sent", "tools"),
    [
        ("auto", None, ["get_weather", "get_time"]),
        ("required", "required", ["get_weather", "get_time"]),
        ("none", "none", ["get_weather", "get_time"]),
        (
            {"type": "function", "name": "get_time"},
            {"type": "function", "name": "get_time"},
            ["get_weather", "get_time"],
        ),
        (
            {
                "type": "allowed_tools",
                "mode": "required",
                "tools": [{"type": "function", "name": "get_time"}],
            },
            "required",
            ["get_time"],
        ),
    ],
    ids=["auto", "required", "none", "function", "allowed_tools"],
)
async def test_every_form_of_tool_choice_is_echoed_and_obeyed(
    stack: Stack, client: openai.AsyncOpenAI, choice: Any, sent: object, tools: list[str]
) -> None:
    """R10, T4: the echo is what was asked; the model is told what follows from it."""
    model = stack.plays(say(text("ok")))

    response = await client.responses.create(
        model=model, input="hi", tools=[WEATHER, TIME], tool_choice=choice
    )

    shown = response.to_dict()
    assert shown["tool_choice"] == choice
    assert [tool["name"] for tool in shown["tools"]] == ["get_weather", "get_time"]  # type: ignore[attr-defined]
    body = (await stack.asks(model)).json
    assert body.get("tool_choice") == sent
    assert [tool["name"] for tool in body["tools"]] == tools


async def test_structured_output_is_parsed(client: openai.AsyncOpenAI) -> None:
    """`responses.parse` and the helper's `text_format`: there and back."""
    parsed = await client.responses.parse(model="demo", input="a point", text_format=Point)
    async with client.responses.stream(model="demo", input="a point", text_format=Point) as stream:
        final = await stream.get_final_response()

    assert isinstance(parsed.output_parsed, Point)
    assert isinstance(final.output_parsed, Point)
    shown = (await client.responses.retrieve(parsed.id)).text
    assert shown is not None
    assert shown.format is not None
    assert shown.format.type == "json_schema"


async def test_reasoning_is_kept_and_replayed(stack: Stack, client: openai.AsyncOpenAI) -> None:
    """R6, M2: reasoning is an item of its own with its text, counted, and part of the next turn."""
    first = stack.plays(say(reasoning("think", "ing"), text("so.")))
    second = stack.plays(say(text("ok")))

    one = await client.responses.create(model=first, input="1", reasoning={"effort": "low"})
    await client.responses.create(model=second, input="2", previous_response_id=one.id)

    assert one.output[0].type == "reasoning"
    assert one.output[0].content is not None
    assert one.output[0].content[0].text == "thinking"
    assert one.usage is not None
    assert one.usage.output_tokens_details.reasoning_tokens == 2
    assert (await stack.asks(first)).json["reasoning"] == {"effort": "low"}
    assert "thinking" in json.dumps((await stack.asks(second)).json["input"])


async def test_logprobs_come_with_the_deltas_and_in_the_item(client: openai.AsyncOpenAI) -> None:
    """R14: asked for by `include`, as the API wants it, in the stream and in the stored item alike."""
    async with client.responses.stream(
        model="demo", input="hi", include=["message.output_text.logprobs"], top_logprobs=2
    ) as stream:
        deltas = [event async for event in stream if event.type == "response.output_text.delta"]
        final = await stream.get_final_response()

    stored = await client.responses.retrieve(final.id)
    message = stored.output[0]
    assert message.type == "message"
    assert message.content[0].type == "output_text"
    logprobs = message.content[0].logprobs
    assert logprobs
    assert len(logprobs) == len(deltas)
    assert all(len(entry.top_logprobs) == 2 for entry in logprobs)
    assert "".join(entry.token for entry in logprobs) == stored.output_text


@pytest.mark.parametrize("url", ["https://example.com/cat.png", PIXEL], ids=["url", "data"])
async def test_images_reach_the_model_in_this_turn_and_the_next(
    stack: Stack, client: openai.AsyncOpenAI, url: str
) -> None:
    """M8: by URL or as data; `detail` is always there, which old servers insist on."""
    first, second = stack.plays(say(text("A cat."))), stack.plays(say(text("ok")))
    content: Any = [
        {"type": "input_text", "text": "What is it?"},
        {"type": "input_image", "image_url": url},
    ]

    one = await client.responses.create(model=first, input=[{"role": "user", "content": content}])
    await client.responses.create(model=second, input="sure?", previous_response_id=one.id)

    for model in (first, second):
        message = (await stack.asks(model)).json["input"][0]
        assert message["content"][1] == {"type": "input_image", "image_url": url, "detail": "auto"}


async def test_a_file_comes_back_and_is_read(stack: Stack, client: openai.AsyncOpenAI) -> None:
    """M8, ADR 17: what was uploaded can be downloaded, whole and in part, and the model reads it."""
    model = stack.plays(say(text("Milk.")))
    file = await client.files.create(file=("notes.md", b"milk, eggs"), purpose="user_data")
    content: Any = [
        {"type": "input_file", "file_id": file.id},
        {"type": "input_text", "text": "What do I need?"},
    ]

    whole = await client.files.content(file.id)
    part = await client.files.content(file.id, extra_headers={"range": "bytes=-4"})
    answer = await client.responses.create(
        model=model, input=[{"role": "user", "content": content}]
    )

    assert (whole.content, part.content) == (b"milk, eggs", b"eggs")
    assert answer.output_text == "Milk."
    assert b"milk, eggs" in stack.asked(model)[0].body


async def test_instructions_hold_for_one_turn(stack: Stack, client: openai.AsyncOpenAI) -> None:
    """M2: they are not inherited; the second turn's model never hears of them."""
    first, second = stack.plays(say(text("Arr."))), stack.plays(say(text("Hello.")))

    one = await client.responses.create(model=first, input="hi", instructions="Be a pirate.")
    two = await client.responses.create(model=second, input="hi", previous_response_id=one.id)

    assert (one.instructions, two.instructions) == ("Be a pirate.", None)
    assert (await stack.asks(first)).json["instructions"] == "Be a pirate."
    assert b"pirate" not in (await stack.asks(second)).body


async def test_a_cut_answer_is_incomplete(stack: Stack, client: openai.AsyncOpenAI) -> None:
    """R9: `response.incomplete` with its reason; the last item is incomplete; both ways alike."""
    model = stack.plays(say(text("Hel", "lo"), cut_short=True))

    whole = await client.responses.create(model=model, input="hi", max_output_tokens=2)
    events = await client.responses.create(
        model=model, input="hi", max_output_tokens=2, stream=True
    )
    last: Any = [event async for event in events][-1]

    assert last.type == "response.incomplete"
    for response in (whole, last.response, await client.responses.retrieve(last.response.id)):
        assert response.status == "incomplete"
        assert response.incomplete_details is not None
        assert response.incomplete_details.reason == "max_output_tokens"
        assert response.output[-1].to_dict()["status"] == "incomplete"
        assert response.max_output_tokens == 2


async def test_what_is_not_to_be_stored_leaves_no_row(
    stack: Stack, client: openai.AsyncOpenAI
) -> None:
    """P5: the client gets its answer, and nobody can find it afterwards."""
    model = stack.plays(say(text("Hello")))
    before = await stack.sql("SELECT count(*) FROM responses")

    whole = await client.responses.create(model=model, input="s3cret-word", store=False)
    async with client.responses.stream(model=model, input="s3cret-word", store=False) as stream:
        final = await stream.get_final_response()

    assert (whole.store, final.store) == (False, False)  # type: ignore[attr-defined]
    for response in (whole, final):
        with pytest.raises(openai.NotFoundError):
            await client.responses.retrieve(response.id)
        with pytest.raises(openai.BadRequestError, match="not found"):
            await client.responses.create(model=model, input="2", previous_response_id=response.id)
    assert await stack.sql("SELECT count(*) FROM responses") == before
    assert not await stack.sql(
        "SELECT 1 FROM items WHERE convert_from(item, 'UTF8') ~ 's3cret-word'"
    )
    assert not [line for line in stack.said if "s3cret-word" in line]


def _without(names: set[str], value: Any) -> Any:
    if isinstance(value, list):
        return [_without(names, entry) for entry in value]
    if isinstance(value, dict):
        return {key: _without(names, entry) for key, entry in value.items() if key not in names}
    return value
