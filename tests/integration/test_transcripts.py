"""Every recorded vLLM stream, seven releases and eleven scenarios, through the whole stack."""

from __future__ import annotations

import json
from typing import Any

import openai
import pytest

from tests.support import transcripts
from tests.support.fix_stack import BOTH_MODES
from tests.support.wire import Wire

TOOLS: Any = [
    {"type": "function", "name": name, "parameters": {"type": "object"}}
    for name in ("get_weather", "get_time", "ping")
]
# What each scenario has to come out as, whatever its release made of it.
OUTPUT = {
    "empty": [],
    "error": ["message"],
    "length": ["message"],
    "parallel": ["function_call", "function_call"],
    "reasoning_only_length": ["reasoning"],
    "reasoning_text": ["reasoning", "message"],
    "reasoning_tool": ["reasoning", "function_call"],
    "text": ["message"],
    "text_tool": ["message", "function_call"],
    "tool": ["function_call"],
    "tool_noargs": ["function_call"],
}


def status_of(scenario: str) -> str:
    if scenario == "error":
        return "failed"
    return "incomplete" if scenario.endswith("length") else "completed"


# Inline, a model server that breaks off ends the client's stream: tests.integration.test_inline_limits.
REPLAYS = [
    (way, name)
    for way in ("envoy", "inline")
    for name in transcripts.names()
    if way == "envoy" or not transcripts.load(name).cut
]


def told(output: list[Any]) -> list[object]:
    """Return what items say, without their ids."""
    return [
        (i["type"], i.get("name"), i.get("arguments"), json.dumps(i.get("content"))) for i in output
    ]


@pytest.mark.parametrize(("way", "name"), REPLAYS, indirect=["way"])
async def test_a_recorded_stream_keeps_every_rule(wire: Wire, name: str) -> None:
    """R1-R9, R14: the oracle accepts it; GET and a request without stream say the same."""
    scenario = name.partition("/")[2]

    seen = await wire.stream(f"vllm-{name}", tools=TOOLS)
    whole = await wire.create(model=f"vllm-{name}", tools=TOOLS, stream=False)

    response = seen.response
    assert response["status"] == status_of(scenario)
    assert [item["type"] for item in response["output"]] == OUTPUT[scenario]
    assert (await wire.get(response["id"])).json == response
    if scenario == "error":
        assert whole.status == 502
    else:
        assert whole.json["status"] == response["status"]
        assert whole.json["usage"] == response["usage"]
        assert told(whole.json["output"]) == told(response["output"])


@BOTH_MODES
@pytest.mark.parametrize(
    "name", [name for name in transcripts.names() if status_of(name.split("/")[1]) == "completed"]
)
async def test_the_sdk_accumulates_a_recorded_stream(client: openai.AsyncOpenAI, name: str) -> None:
    """R14: the strict accumulator of the SDK accepts what we make of it, and so does the next turn."""
    async with client.responses.stream(model=f"vllm-{name}", input="hi", tools=TOOLS) as stream:
        final = await stream.get_final_response()

    stored = await client.responses.retrieve(final.id)
    calls = [item for item in stored.output if item.type == "function_call"]
    assert [item.to_dict()["id"] for item in final.output] == [
        item.to_dict()["id"] for item in stored.output
    ]
    outputs: Any = [
        {"type": "function_call_output", "call_id": call.call_id, "output": "42"} for call in calls
    ]
    release = name.partition("/")[0]
    answer = await client.responses.create(
        model=f"vllm-{release}/demo",
        input=[*outputs, {"role": "user", "content": "and now?"}],
        previous_response_id=final.id,
        tools=TOOLS,
    )
    assert answer.status == "completed"
