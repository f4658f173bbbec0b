"""A real llama.cpp behind the gateway, in both of its dialects; its model is tests.support.gguf's."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from typing import Any

import openai
import pytest
import pytest_asyncio

from storage.postgres.embedded import EmbeddedPostgres
from tests.support.fix_postgres import create_database
from tests.support.fix_stack import open_session
from tests.support.llamacpp import MODEL, serving
from tests.support.scripted_model import ScriptedModel
from tests.support.stack import CLIENT_KEY, Stack, eventually, running_stack
from tests.support.wire import Seen, Wire

TOOLS: Any = [
    {"type": "function", "name": name, "parameters": {"type": "object", "properties": {}}}
    for name in ("get_weather", "get_time")
]
TOOLS[0]["parameters"]["properties"]["city"] = {"type": "string"}
FORMAT = {
    "type": "json_schema",
    "name": "person",
    "schema": {
        "type": "object",
        "properties": {"name": {"type": "string"}, "age": {"type": "integer"}},
        "required": ["name", "age"],
        "additionalProperties": False,
    },
}
TOLD = [("message", "I will look.\n"), ("get_weather", '{"city": "Paris"}'), ("get_time", "{}")]


@pytest_asyncio.fixture(scope="module")
async def llamacpp(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[str]:
    """The URL of a llama.cpp."""
    async with serving(tmp_path_factory.mktemp("llamacpp")) as url:
        yield url


@pytest_asyncio.fixture(scope="module", params=["auto", "responses"])
async def served(
    request: pytest.FixtureRequest,
    postgres_server: EmbeddedPostgres,
    stage: ScriptedModel,
    llamacpp: str,
) -> AsyncIterator[Stack]:
    """One worker in front of it: as it is asked by itself, and as it is asked if the settings say so."""
    async with running_stack(
        stage,
        await create_database(postgres_server),
        sidecar={"workers": 1, "drain_seconds": 0},
        model={"url": llamacpp, "dialect": request.param, "server": "auto", "probe_seconds": 0.2},
    ) as running:
        known = "the model server is llamacpp"
        await eventually(lambda: any(known in line for line in running.said))
        yield running


@pytest_asyncio.fixture
async def wire(served: Stack) -> AsyncIterator[Wire]:
    """A client that checks every stream against the rules."""
    async with open_session(served.url) as session:
        yield Wire(session)


async def turn(wire: Wire, before: Seen | None, given: Any, **fields: Any) -> Seen:
    previous = {} if before is None else {"previous_response_id": before.response["id"]}
    return await wire.stream(MODEL, input=given, **previous, **fields)


def told(response: Any) -> list[tuple[str, str]]:
    return [
        (item["name"], item["arguments"])
        if item["type"] == "function_call"
        else (item["type"], "".join(part["text"] for part in item["content"]))
        for item in response["output"]
    ]


def outputs(response: Any) -> list[Any]:
    return [
        {"type": "function_call_output", "call_id": item["call_id"], "output": "sunny"}
        for item in response["output"]
        if item["type"] == "function_call"
    ]


async def test_a_conversation_is_whole(wire: Wire) -> None:
    """R1-R9, M2, M4: thoughts, text and calls come as items, and each is taken back in the next turn."""
    thought = await turn(wire, None, "think, please")
    called = await turn(wire, thought, "the weather in Paris, please", tools=TOOLS)
    answered = await turn(wire, called, outputs(called.response), tools=TOOLS)
    last = await turn(wire, answered, "and?", instructions="Be brief.", temperature=0.5)

    assert told(thought.response) == [("reasoning", "Let me see.\n"), ("message", "Hello.")]
    assert told(called.response) == TOLD
    assert told(answered.response) == told(last.response) == [("message", "Hello.")]
    assert answered.response["usage"]["input_tokens"] > called.response["usage"]["input_tokens"]
    assert (await wire.get(last.response["id"])).json == last.response


async def test_an_answer_without_a_stream_is_the_same(wire: Wire) -> None:
    """R14: also in the turn behind it."""
    called = await wire.create(model=MODEL, input="the weather in Paris", tools=TOOLS, stream=False)
    answered = await wire.create(
        model=MODEL,
        input=outputs(called.json),
        previous_response_id=called.json["id"],
        tools=TOOLS,
        stream=False,
    )
    assert told(called.json) == TOLD
    assert told(answered.json) == [("message", "Hello.")]


async def test_the_sdk_holds_a_conversation(served: Stack) -> None:
    """R14: the strict accumulator of the official SDK takes what we make of its streams."""
    async with openai.AsyncOpenAI(
        base_url=f"{served.url}/v1", api_key=CLIENT_KEY, max_retries=0, timeout=20
    ) as sdk:
        asked: Any = {"model": MODEL, "tools": TOOLS}
        async with sdk.responses.stream(input="the weather in Paris", **asked) as stream:
            called = await stream.get_final_response()
        given: Any = outputs(called.to_dict())
        async with sdk.responses.stream(
            input=given, previous_response_id=called.id, **asked
        ) as stream:
            answered = await stream.get_final_response()

    assert told(called.to_dict()) == TOLD
    assert answered.output_text == "Hello."


async def test_babble_is_delivered_and_can_be_continued(wire: Wire) -> None:
    """R9, M8: broken characters, control characters; cut by its limit."""
    seen = await turn(wire, None, "babble", max_output_tokens=48)
    after = await turn(wire, seen, "thank you")

    assert seen.response["status"] == "incomplete"
    assert seen.response["incomplete_details"] == {"reason": "max_output_tokens"}
    assert seen.text
    assert told(after.response) == [("message", "Hello.")]


async def test_its_refusals_are_told_in_our_form(wire: Wire) -> None:
    """R15, M6: a prompt that is too long has the code that clients look for; this model sees no images."""
    long = await wire.create(model=MODEL, input="x" * 20_000, stream=False)
    image = {"type": "input_image", "image_url": "data:image/png;base64,AA"}
    seen = await wire.create(
        model=MODEL, input=[{"role": "user", "content": [image]}], stream=False
    )
    assert (long.status, long.json["error"]["code"]) == (400, "context_length_exceeded")
    assert seen.status == 500
    assert "image input is not supported" in seen.json["error"]["message"]


async def test_a_schema_is_followed_or_the_request_refused(wire: Wire, served: Stack) -> None:
    """H1: its `/v1/responses` passes over `text.format`."""
    seen = await wire.create(
        model=MODEL, input="Who is Ada?", text={"format": FORMAT}, stream=False
    )
    if served.settings.model.dialect == "responses":
        assert (seen.status, seen.json["error"]["param"]) == (400, "text.format")
    else:
        assert told(seen.json) == [("message", '{"name": "Ada", "age": 36}')]


@pytest.mark.parametrize(
    ("dialect", "broken"), [("auto", []), ("responses", ["structured output"])]
)
async def test_the_doctor_tells_what_it_is_good_for(
    llamacpp: str, dialect: str, broken: list[str]
) -> None:
    """Issue 5, part 9, with a server that nobody scripted."""
    doctor = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "extproc", "doctor", "--backend", llamacpp, "--json"),
        stdout=asyncio.subprocess.PIPE,
        env={"PYTHONPATH": ":".join(sys.path), "HOLDFAST_MODEL__DIALECT": dialect},
    )
    said, _ = await asyncio.wait_for(doctor.communicate(), 60)
    report = json.loads(said)
    found = {probe["probe"]: probe["verdict"] for probe in report["probes"]}

    assert report["server"] == "llamacpp"
    assert [probe for probe, verdict in found.items() if verdict == "broken"] == broken
    assert doctor.returncode == (1 if broken else 0)
    working = {"truncation", "reasoning", "tool call", "parallel calls", "answer to a call"}
    assert {found[probe] for probe in working} <= {"works", "repaired"}
