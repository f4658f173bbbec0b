"""Other servers than vLLM behind the gateway, known by what they say of themselves, or by the settings."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

from storage.postgres.embedded import EmbeddedPostgres
from tests.support.fix_postgres import create_database
from tests.support.fix_stack import open_session
from tests.support.scripted_model import ScriptedModel
from tests.support.scripts import CHAT, RESPONSES
from tests.support.servers import SERVERS, FakeServer
from tests.support.stack import Stack, eventually, running_stack
from tests.support.wire import Seen, Wire

TOOLS = [{"type": "function", "name": name} for name in ("get_weather", "get_time")]
IMAGE = {"type": "input_image", "image_url": "data:image/png;base64,AA"}
# Its list of models is like any other's.
UNKNOWABLE = {"transformers": "transformers"}


@pytest_asyncio.fixture(params=SERVERS)
async def served(
    request: pytest.FixtureRequest, postgres_server: EmbeddedPostgres
) -> AsyncIterator[Stack]:
    """One worker in front of a server of that kind."""
    named = UNKNOWABLE.get(request.param, "auto")
    async with (
        FakeServer(request.param) as server,
        running_stack(
            server,
            await create_database(postgres_server),
            sidecar={"workers": 1, "drain_seconds": 0},
            model={"dialect": "auto", "server": named, "probe_seconds": 0.2},
        ) as running,
    ):
        yield running


async def test_a_conversation_is_whole_in_front_of_any_server(served: Stack) -> None:
    """R1-R9, M4: streams keep every rule, and no server turns down what it is sent of the history."""
    async with open_session(served.url) as session:
        wire = Wire(session)
        thought = await turn(wire, None, "think, please")
        called = await turn(wire, thought, "the weather in Paris, please", tools=TOOLS)
        calls = [item for item in called.response["output"] if item["type"] == "function_call"]
        outputs = [
            {"type": "function_call_output", "call_id": call["call_id"], "output": "sunny"}
            for call in calls
        ]
        answered = await turn(wire, called, outputs, tools=TOOLS)
        looked = [{"role": "user", "content": [{"type": "input_text", "text": "and?"}, IMAGE]}]
        last = await turn(wire, answered, looked, instructions="Be brief.", temperature=0.5)
        stored = await wire.get(last.response["id"])

    assert told(thought) == [("reasoning", "Let me see."), ("message", "Hello.")]
    assert told(called)[0] == ("message", "I will look.")
    assert [(call["name"], call["arguments"].replace(" ", "")) for call in calls] == [
        ("get_weather", '{"city":"Paris"}'),
        ("get_time", "{}"),
    ]
    assert told(answered) == told(last) == [("message", "Hello.")]
    assert stored.json == last.response
    assert [received.path for received in served.model.requests] == [CHAT] * 4


async def turn(wire: Wire, before: Seen | None, given: Any, **fields: Any) -> Seen:
    previous = {} if before is None else {"previous_response_id": before.response["id"]}
    seen = await wire.stream("m", input=given, **previous, **fields)
    assert seen.ending["type"] == "response.completed"
    return seen


def told(seen: Seen) -> list[tuple[str, str]]:
    return [
        (item["type"], "".join(part["text"] for part in item.get("content") or ()))
        for item in seen.response["output"]
    ]


@pytest.mark.parametrize(("release", "path"), [("0.20.0", CHAT), ("0.32.0", RESPONSES)])
async def test_vllm_is_asked_in_the_dialect_of_its_release(
    postgres_server: EmbeddedPostgres, release: str, path: str
) -> None:
    """R8: `auto` finds out, and the log says so."""
    async with (
        ScriptedModel(release=release) as model,
        running_stack(
            model,
            await create_database(postgres_server),
            sidecar={"workers": 1, "drain_seconds": 0},
            model={"dialect": "auto", "probe_seconds": 0.2},
        ) as running,
        open_session(running.url) as session,
    ):
        known = f"the model server is vllm {release}"
        await eventually(lambda: any(known in line for line in running.said))
        seen = await Wire(session).stream("holdfast-demo")

        assert seen.ending["type"] == "response.completed"
        assert [received.path for received in model.requests] == [path]


async def test_a_server_that_says_nothing_of_itself_is_asked_all_the_same(
    postgres_server: EmbeddedPostgres,
) -> None:
    """Probing that fails neither blocks nor breaks: the dialect is the one that every server has."""
    async with (
        Mute() as model,
        running_stack(
            model,
            await create_database(postgres_server),
            sidecar={"workers": 1, "drain_seconds": 0},
            model={"dialect": "auto", "probe_seconds": 0.2},
        ) as running,
        open_session(running.url) as session,
    ):
        seen = await Wire(session).stream("holdfast-demo")
        await eventually(lambda: len(model.probes) > 2)
        again = await Wire(session).stream("holdfast-demo")

        assert (seen.text, seen.ending["type"]) == (again.text, "response.completed")
        assert [received.path for received in model.requests] == [CHAT] * 2


class Mute(ScriptedModel):
    """A model server that fails whatever it is asked about itself."""

    def _probe(self, request: Any) -> Any:
        raise ConnectionResetError
