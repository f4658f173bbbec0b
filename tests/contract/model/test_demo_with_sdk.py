"""The official SDK, a strict reader of streams, against the demo model."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import openai
import pytest

from tests.support.scripted_model import ScriptedModel

TOOLS = [
    {
        "type": "function",
        "name": name,
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
    }
    for name in ("get_weather", "get_time")
]
SCHEMA = {
    "type": "json_schema",
    "name": "answer",
    "schema": {"type": "object", "properties": {"n": {"type": "integer"}}},
}
LOGPROBS = ["message.output_text.logprobs"]
IMAGE = {"type": "input_image", "image_url": "data:image/png;base64,AA", "detail": "auto"}
USER = [{"role": "user", "content": [{"type": "input_text", "text": "look"}, IMAGE]}]

# What each request makes the demo model say: the types of its output items.
REQUESTS: dict[str, tuple[dict[str, Any], list[str]]] = {
    "text": ({"input": "hello"}, ["message"]),
    "reasoning": ({"input": "hi", "reasoning": {"effort": "low"}}, ["reasoning", "message"]),
    "call": ({"input": "get_weather", "tools": TOOLS}, ["function_call"]),
    "parallel": ({"input": "get_weather get_time", "tools": TOOLS}, ["function_call"] * 2),
    "one at a time": (
        {"input": "get_weather get_time", "tools": TOOLS, "parallel_tool_calls": False},
        ["function_call"],
    ),
    "required": ({"input": "x", "tools": TOOLS, "tool_choice": "required"}, ["function_call"]),
    "reasoning and call": (
        {"input": "think get_time", "tools": TOOLS},
        ["reasoning", "function_call"],
    ),
    "custom": (
        {"input": "patch it", "tools": [{"type": "custom", "name": "patch"}]},
        ["custom_tool_call"],
    ),
    "schema": ({"input": "hi", "text": {"format": SCHEMA}}, ["message"]),
    "json": ({"input": "hi", "text": {"format": {"type": "json_object"}}}, ["message"]),
    "logprobs": ({"input": "hi", "include": LOGPROBS, "top_logprobs": 2}, ["message"]),
    "image": ({"input": USER}, ["message"]),
}


@pytest.fixture
async def sdk(model: ScriptedModel) -> AsyncIterator[openai.AsyncOpenAI]:
    """The SDK, pointed straight at the model, without retries."""
    url = f"{model.url}/v1"
    async with openai.AsyncOpenAI(
        base_url=url, api_key="none", max_retries=0, timeout=10
    ) as client:
        yield client


@pytest.mark.parametrize("name", REQUESTS)
async def test_the_sdk_accumulates_the_stream(sdk: openai.AsyncOpenAI, name: str) -> None:
    """The stream helper raises on any event that is out of place."""
    request, kinds = REQUESTS[name]
    async with sdk.responses.stream(model="demo", **request) as stream:
        final = await stream.get_final_response()
    assert [item.type for item in final.output] == kinds
    assert final.usage is not None
    assert final.usage.output_tokens > 0


@pytest.mark.parametrize("name", REQUESTS)
async def test_the_sdk_reads_the_whole_answer(sdk: openai.AsyncOpenAI, name: str) -> None:
    """The same without a stream."""
    request, kinds = REQUESTS[name]
    response = await sdk.responses.create(model="demo", **request)
    assert [item.type for item in response.output] == kinds


async def test_the_sdk_reads_a_chat_stream_with_calls(sdk: openai.AsyncOpenAI) -> None:
    """The chat helper puts the call together."""
    tool = {"type": "function", "function": {"name": "get_time", "parameters": {}}}
    async with sdk.chat.completions.stream(
        model="demo",
        messages=[{"role": "user", "content": "get_time"}],
        tools=[tool],  # type: ignore[list-item]  # a plain dict, as a user writes it
    ) as stream:
        completion = await stream.get_final_completion()
    calls = completion.choices[0].message.tool_calls
    assert calls is not None
    assert calls[0].function.name == "get_time"


async def test_the_sdk_maps_a_refusal_to_its_error(sdk: openai.AsyncOpenAI) -> None:
    """A 400 with vLLM's body is a BadRequestError."""
    with pytest.raises(openai.BadRequestError, match="Unsupported input item type"):
        await sdk.responses.create(model="demo", input=[{"type": "item_reference", "id": "msg_1"}])
