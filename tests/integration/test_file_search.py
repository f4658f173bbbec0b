"""`file_search` through Envoy: real stores, embeddings over HTTP, the official SDKs (T1, T8, X1, P4)."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from collections.abc import AsyncIterator
from typing import Any

import openai
import pytest
import pytest_asyncio
from agents import Agent, FileSearchTool, OpenAIResponsesModel, RunConfig, Runner

from storage.postgres.embedded import EmbeddedPostgres
from tests.support import replies
from tests.support.embeddings_server import EmbeddingsServer
from tests.support.fix_postgres import create_database
from tests.support.mcp_turns import Turns
from tests.support.replies import call, say, text
from tests.support.retrieving import retrieving_stack
from tests.support.scripted_model import ScriptedModel
from tests.support.scripts import Hold, Script
from tests.support.stack import CLIENT_KEY, Stack, eventually

BELT = "The seat belt is worn at all times, says the law of 1970."
HELMET = "On a motorcycle a helmet is worn, says the law of 1999."
RESULTS: Any = ["file_search_call.results"]
SEARCH = call("file_search", '{"queries": ["seat belt law"]}')
CITES = say(text("Gürtel", " tragen", " 【", "1】", "."))
CONFIG = RunConfig(tracing_disabled=True)


@pytest_asyncio.fixture(scope="module")
async def server() -> AsyncIterator[EmbeddingsServer]:
    """What makes vectors."""
    async with EmbeddingsServer(dimensions=64) as running:
        yield running


@pytest_asyncio.fixture(scope="module", params=[False, True], ids=["relay", "inline"])
async def stack(
    postgres_server: EmbeddedPostgres,
    stage: ScriptedModel,
    server: EmbeddingsServer,
    request: pytest.FixtureRequest,
) -> AsyncIterator[Stack]:
    """A stack that retrieves; inline, the first turn is the request itself."""
    async with retrieving_stack(
        stage,
        await create_database(postgres_server),
        server,
        envoy={"inline": request.param},
        postgres={"lease_seconds": 2.0},
    ) as running:
        yield running


@pytest_asyncio.fixture(scope="module")
async def client(stack: Stack) -> AsyncIterator[openai.AsyncOpenAI]:
    """The official SDK."""
    async with openai.AsyncOpenAI(
        base_url=f"{stack.url}/v1", api_key=CLIENT_KEY, max_retries=0, timeout=30
    ) as sdk:
        yield sdk


@pytest_asyncio.fixture(scope="module")
async def store(client: openai.AsyncOpenAI) -> str:
    """A vector store with two files."""
    made = await client.vector_stores.create(name="laws")
    for name, content, year in (("belt.md", BELT, 1970), ("helmet.txt", HELMET, 1999)):
        file = await client.files.create(file=(name, content.encode()), purpose="assistants")
        done = await client.vector_stores.files.create_and_poll(
            file.id, vector_store_id=made.id, attributes={"year": year}
        )
        assert done.status == "completed", done.last_error
    return made.id


def tool(store: str, **fields: Any) -> Any:
    return {"type": "file_search", "vector_store_ids": [store], **fields}


async def test_a_stream_of_the_sdk_with_a_search_and_a_citation(
    stack: Stack, client: openai.AsyncOpenAI, store: str
) -> None:
    """T1, T8, R14: `responses.stream()` accepts it; what is stored is what was streamed."""
    turns = Turns(stack, say(SEARCH), CITES)
    async with client.responses.stream(model="m", input="hi", tools=[tool(store)]) as stream:
        events = [event async for event in stream]
        response = await stream.get_final_response()

    kinds = [event.type for event in events]
    assert not [kind for kind in kinds if "function_call" in kind]
    assert "response.file_search_call.searching" in kinds
    [added] = [e for e in events if e.type == "response.output_text.annotation.added"]
    found, message = response.output
    assert found.type == "file_search_call"
    assert (found.queries, found.results) == (["seat belt law"], None)
    assert message.type == "message"
    assert message.content[0].type == "output_text"
    assert message.content[0].text == "Gürtel tragen."
    [cited] = message.content[0].annotations
    assert cited.type == "file_citation"
    assert (cited.filename, cited.index) == ("belt.md", 13)
    assert added.annotation is not None
    assert added.annotation.to_dict() == cited.to_dict()
    assert added.annotation_index == 0
    [told] = turns.outputs(1)
    assert f"【1】 belt.md ({cited.file_id})\n{BELT}" in told
    stored = await client.responses.retrieve(response.id)
    assert stored.output_text == "Gürtel tragen."
    assert all("x-request-id" in received.headers for received in turns.asked)


async def test_results_filters_and_options(
    stack: Stack, client: openai.AsyncOpenAI, store: str
) -> None:
    """T8: filters are exact; `include` shows what was found."""
    Turns(stack, say(SEARCH), say(text("done")))
    late: Any = {"type": "gt", "key": "year", "value": 1980}
    declared = tool(
        store,
        filters=late,
        max_num_results=5,
        ranking_options={
            "ranker": "auto",
            "score_threshold": 0.0,
            "hybrid_search": {"embedding_weight": 1.0, "text_weight": 0.5},
        },
    )
    response = await client.responses.create(
        model="m", input="hi", tools=[declared], include=RESULTS
    )
    found = response.output[0]
    assert found.type == "file_search_call"
    assert found.results is not None
    [result] = found.results
    assert (result.filename, result.text) == ("helmet.txt", HELMET)
    assert result.attributes == {"year": 1999}
    assert result.score is not None
    assert 0 < result.score <= 1
    assert response.tools[0].to_dict() == declared


async def test_a_later_turn_cites_what_an_earlier_one_found(
    stack: Stack, client: openai.AsyncOpenAI, store: str
) -> None:
    """M1, M2, M9, T8: through whichever worker."""
    turns = Turns(stack, say(SEARCH), CITES, say(text("As said【1】.")))
    first = await client.responses.create(model="m", input="hi", tools=[tool(store)])
    second = await client.responses.create(
        model="m", input="and?", previous_response_id=first.id, tools=[tool(store)]
    )
    [told] = turns.outputs(2)
    assert BELT in told
    sent = [i["content"] for i in turns.asked[2].json["input"] if i.get("role") == "assistant"]
    assert sent == ["Gürtel tragen 【1】."]
    message = second.output[0]
    assert message.type == "message"
    assert message.content[0].type == "output_text"
    assert message.content[0].text == "As said."
    assert message.content[0].annotations[0].to_dict()["filename"] == "belt.md"


async def test_a_missing_store_is_refused_before_the_model_is_called(
    stack: Stack, client: openai.AsyncOpenAI
) -> None:
    """X1: streams, too."""
    turns = Turns(stack)
    ways: list[Any] = [{}, {"stream": True}, {"background": True}]
    for fields in ways:
        with pytest.raises(openai.NotFoundError) as caught:
            await client.responses.create(model="m", input="hi", tools=[tool("vs_none")], **fields)
        assert caught.value.param == "tools[0].vector_store_ids[0]"
    assert turns.asked == []


async def test_a_store_that_goes_while_a_response_runs(
    stack: Stack, client: openai.AsyncOpenAI
) -> None:
    """X1, T2: the model is told, and goes on."""
    made = await client.vector_stores.create(name="short")
    gate = asyncio.Event()
    turns = Turns(stack, Script(Hold(gate), replies.stream(SEARCH)), say(text("done")))
    running = asyncio.create_task(
        client.responses.create(model="m", input="hi", tools=[tool(made.id)], stream=True)
    )
    await eventually(lambda: len(turns.asked) == 1)
    await client.vector_stores.delete(made.id)
    gate.set()
    kinds = [event async for event in await running]
    assert kinds[-1].type == "response.completed"
    assert kinds[-1].response.output[0].to_dict()["status"] == "failed"
    assert "not found" in turns.outputs(1)[0]


def agent(client: openai.AsyncOpenAI, store: str, *, shows: bool) -> Agent[Any]:
    return Agent(
        name="a",
        model=OpenAIResponsesModel(model="m", openai_client=client),
        tools=[FileSearchTool([store], max_num_results=3, include_search_results=shows)],
    )


async def run(one: Agent[Any], given: Any, *, stream: bool, **more: Any) -> Any:
    """Run an agent to its end."""
    if not stream:
        return await Runner.run(one, given, run_config=CONFIG, **more)
    result = Runner.run_streamed(one, given, run_config=CONFIG, **more)
    async for _ in result.stream_events():
        pass
    return result


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("shows", [True, False])
async def test_an_agent_searches_and_is_asked_again(
    stack: Stack, client: openai.AsyncOpenAI, store: str, stream: bool, shows: bool
) -> None:
    """M4, M8, T8: the Agents SDK sends all items back; with results the model is told of them again."""
    turns = Turns(stack, say(SEARCH), CITES, say(text("As said【1】.")))
    one = agent(client, store, shows=shows)
    first = await run(one, "hi", stream=stream)
    assert first.final_output == "Gürtel tragen."
    again = await run(
        one, [*first.to_input_list(), {"role": "user", "content": "and?"}], stream=stream
    )
    assert again.final_output == ("As said." if shows else "As said【1】.")
    told = turns.outputs(2)
    assert [BELT in each for each in told] == ([True] if shows else [])


async def test_a_killed_worker_does_not_search_twice(
    stack: Stack, client: openai.AsyncOpenAI, server: EmbeddingsServer, store: str
) -> None:
    """P4, T8: in the background; the next worker is told what the dead one found, and may cite it."""
    never = asyncio.Event()
    turns = Turns(stack, say(SEARCH), Script(Hold(never), replies.stream(text("x"))), CITES)
    made = await client.responses.create(
        model="m", input="hi", tools=[tool(store)], background=True
    )
    await eventually(lambda: len(turns.asked) == 2)
    embedded = len(server.requests)
    killed = [stack.worker(index) for index in (0, 1)]
    for pid in killed:
        os.kill(pid, signal.SIGKILL)
    for index, pid in enumerate(killed):
        await stack.replaced(index, pid)

    async def ended() -> bool:
        return (await client.responses.retrieve(made.id)).status == "completed"

    await eventually(ended, timeout=60)
    never.set()
    response = await client.responses.retrieve(made.id)
    assert len(server.requests) == embedded
    assert json.loads(turns.asked[2].body)["input"] == json.loads(turns.asked[1].body)["input"]
    assert [item.type for item in response.output] == ["file_search_call", "message"]
    assert response.output_text == "Gürtel tragen."
