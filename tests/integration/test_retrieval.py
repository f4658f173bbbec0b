"""A library in ten formats, retrieved through Envoy with embeddings made offline: recall, and filters.

Everything is real: the documents, the model that makes vectors, both indexes, the official SDK.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import openai
import pytest
import pytest_asyncio
from agents import Agent, FileSearchTool, OpenAIResponsesModel, RunConfig, Runner

from engine.api.filters import matches, parse_filter
from storage.postgres.embedded import EmbeddedPostgres
from tests.support.fix_postgres import create_database
from tests.support.library import LIBRARY, QUESTIONS, Question
from tests.support.mcp_turns import Turns
from tests.support.replies import Part, body, call, say, stream, text
from tests.support.scripted_model import ScriptedModel
from tests.support.scripts import Asked, Body, Hold, Say, Script, Stream
from tests.support.shelves import INDEXES, Shelf, attributes, reading_stack, shelved
from tests.support.stack import CLIENT_KEY, Stack, eventually

LEAST_RECALL = 0.9
# Every chunk has one of these words, or is near them by meaning: the question does not choose.
BROAD = "the a of is in and to"


def compared(kind: str, key: str, value: Any) -> dict[str, Any]:
    """Return a comparison."""
    return {"type": kind, "key": key, "value": value}


def joined(kind: str, *filters: dict[str, Any]) -> dict[str, Any]:
    """Return filters put together by `and` or `or`."""
    return {"type": kind, "filters": list(filters)}


SCIENCE, KITCHEN = compared("eq", "department", "science"), compared("eq", "department", "kitchen")
FILTERS = [
    SCIENCE,
    compared("ne", "department", "science"),
    compared("in", "department", ["it", "people", "no such"]),
    compared("nin", "department", ["it", "people", "science"]),
    compared("in", "year", [2019, 2024]),
    compared("gt", "year", 2022),
    compared("gte", "year", 2022),
    compared("lt", "year", 2020),
    compared("lte", "year", 2020),
    compared("eq", "year", "2020"),
    compared("ne", "author", "nobody has one"),
    joined("and", SCIENCE, compared("gt", "year", 2021)),
    joined("or", KITCHEN, compared("eq", "year", 2018)),
    joined(
        "and",
        joined("or", SCIENCE, KITCHEN, compared("in", "department", ["garden"])),
        joined("and", compared("gte", "year", 2021), compared("ne", "year", 2022)),
    ),
    joined("or", joined("and", SCIENCE, KITCHEN), compared("eq", "department", "nowhere")),
]


@pytest_asyncio.fixture(scope="module", params=INDEXES)
async def stack(
    request: pytest.FixtureRequest,
    postgres_server: EmbeddedPostgres,
    stage: ScriptedModel,
    minilm_cache: Path,
) -> AsyncIterator[Stack]:
    """A stack with the local model, once with each index."""
    database = await create_database(postgres_server)
    leases = {"lease_seconds": 2.0}
    async with reading_stack(
        stage, database, minilm_cache, request.param, postgres=leases
    ) as running:
        yield running


@pytest_asyncio.fixture(scope="module")
async def client(stack: Stack) -> AsyncIterator[openai.AsyncOpenAI]:
    """The official SDK."""
    async with openai.AsyncOpenAI(
        base_url=f"{stack.url}/v1", api_key=CLIENT_KEY, max_retries=0, timeout=60
    ) as sdk:
        yield sdk


@pytest_asyncio.fixture(scope="module")
async def shelf(client: openai.AsyncOpenAI) -> Shelf:
    """The library in a vector store."""
    return await shelved(client)


async def found(
    client: openai.AsyncOpenAI, shelf: Shelf, query: str, most: int, **more: Any
) -> list[str]:
    """Return the names of the texts that a search finds, best first."""
    page = await client.vector_stores.search(shelf.store, query=query, max_num_results=most, **more)
    return shelf.named([result.file_id for result in page.data])


@pytest.mark.parametrize("ranker", ["auto", "none"])
async def test_questions_find_the_document_that_answers_them(
    client: openai.AsyncOpenAI,
    shelf: Shelf,
    ranker: str,
    record_property: Callable[[str, object], None],
) -> None:
    """T8: recall@5 over the questions, with words and vectors fused, and with vectors alone."""
    best, among = 0, []
    for question in QUESTIONS:
        options: Any = {"ranker": ranker}
        names = await found(client, shelf, question.text, 5, ranking_options=options)
        best += names[:1] == [question.answered_by]
        among.append(question.answered_by in names)
    figures = f"recall@5 {sum(among) / len(among):.3f}, recall@1 {best / len(among):.3f}"
    record_property(f"recall, ranker {ranker}", figures)
    assert sum(among) / len(among) >= LEAST_RECALL, figures


@pytest.mark.parametrize("ranker", ["auto", "none"])
async def test_filters_are_exact(client: openai.AsyncOpenAI, shelf: Shelf, ranker: str) -> None:
    """T8: what is found is what the filter says, no file more and none less."""
    options: Any = {"ranker": ranker}
    everything = await found(client, shelf, BROAD, 50, ranking_options=options)
    assert set(everything) == {text.name for text in LIBRARY}
    for given in FILTERS:
        wanted = parse_filter(given, "filters")
        names = await found(client, shelf, BROAD, 50, filters=given, ranking_options=options)
        assert set(names) == {t.name for t in LIBRARY if matches(wanted, attributes(t))}, given


# -- the same through the model ------------------------------------------------------------------------

BEFORE, BEHIND = "𝄞 Grüße: das steht dort", "; das ist alles."
RESULTS: Any = ["file_search_call.results"]
# One of each of the formats that are no text.
ASKED = [QUESTIONS[number] for number in (3, 4, 5, 6)]


def searches(question: Question) -> Script:
    """Return a turn that asks with the words of the user."""
    return say(call("file_search", json.dumps({"queries": [question.text]})))


def cites(name: str) -> Script:
    """Return a turn that cites a text by the number under which the model was told of it."""

    def answer(asked: Asked) -> Part:
        told = [item["output"] for item in asked.body["input"] if "output" in item]
        numbers = re.findall(rf"【(\d+)】 {name}\.", "\n".join(told))
        if not numbers:
            return text(f"I was not told of {name}, but: {told}")
        return text(BEFORE, " 【", f"{numbers[-1]}】", BEHIND)

    return Script(
        Say(
            Stream(lambda asked: stream(answer(asked)).make(asked)),
            Body(lambda asked: body(answer(asked)).make(asked)),
        )
    )


def tool(shelf: Shelf, **fields: Any) -> Any:
    """Return the declaration of `file_search` in the library."""
    return {"type": "file_search", "vector_store_ids": [shelf.store], **fields}


def checked(response: Any, shelf: Shelf, question: Question) -> None:
    """Check that a response searched for the question, found its answer and cites it where it is meant."""
    search, message = response.output
    assert (search.type, search.status, search.queries) == (
        "file_search_call", "completed", [question.text],
    )  # fmt: skip
    right = right_one(response, shelf, question)
    [known] = [each for each in LIBRARY if each.name == question.answered_by]
    assert right.filename == f"{known.name}.{known.kind}"
    assert right.attributes == attributes(known)
    assert all(paragraph in " ".join(right.text.split()) for paragraph in known.paragraphs)
    cited_at(message, right)


def right_one(response: Any, shelf: Shelf, question: Question) -> Any:
    """Return the result of a response's search that answers the question."""
    results = response.output[0].results
    [right] = [r for r in results if r.file_id == shelf.files[question.answered_by]]
    return right


def cited_at(message: Any, right: Any) -> None:
    """Check the text of a message, and that its one citation stands behind the first part."""
    [content] = message.content
    assert content.text == BEFORE + BEHIND
    [cited] = content.annotations
    assert (cited.type, cited.file_id, cited.filename, cited.index) == (
        "file_citation", right.file_id, right.filename, len(BEFORE),
    )  # fmt: skip


@pytest.mark.parametrize("streamed", [False, True])
async def test_a_model_asks_and_cites(
    stack: Stack, client: openai.AsyncOpenAI, shelf: Shelf, streamed: bool
) -> None:
    """T1, T8, R14: item, results and annotations, streamed and not; a second turn knows of the first."""
    for question in ASKED:
        turns = Turns(stack, searches(question), cites(question.answered_by))
        response = await asked(client, shelf, question.text, streamed)
        checked(response, shelf, question)
        assert len(turns.asked) == 2

        stored: Any = await client.responses.retrieve(response.id, include=RESULTS)
        checked(stored, shelf, question)
        Turns(stack, cites(question.answered_by))
        later = await asked(client, shelf, "Who says so?", streamed, previous_response_id=stored.id)
        [message] = later.output
        cited_at(message, right_one(stored, shelf, question))


async def asked(
    client: openai.AsyncOpenAI, shelf: Shelf, given: str, streamed: bool, **more: Any
) -> Any:
    """Ask the model, which may search the library; return the response."""
    fields: Any = {"input": given, "tools": [tool(shelf)], "include": RESULTS, **more}
    if not streamed:
        return await client.responses.create(model="m", **fields)
    async with client.responses.stream(model="m", **fields) as events:
        kinds = [event.type async for event in events]
        response = await events.get_final_response()
    searches_shown = sum(item.type == "file_search_call" for item in response.output)
    assert kinds.count("response.file_search_call.searching") == searches_shown
    assert kinds.count("response.output_text.annotation.added") == 1
    return response


async def test_what_the_model_searches_is_filtered(
    stack: Stack, client: openai.AsyncOpenAI, shelf: Shelf
) -> None:
    """T8: the declaration's filters hold, whatever the model asks."""
    for given in FILTERS:
        wanted = parse_filter(given, "filters")
        Turns(stack, say(call("file_search", json.dumps({"queries": [BROAD]}))), say(text("ok")))
        response: Any = await client.responses.create(
            model="m",
            input="everything",
            tools=[tool(shelf, filters=given, max_num_results=50)],
            include=RESULTS,
        )
        names = shelf.named([result.file_id for result in response.output[0].results])
        assert set(names) == {t.name for t in LIBRARY if matches(wanted, attributes(t))}, given


async def test_a_search_in_the_background_survives_its_worker(
    stack: Stack, client: openai.AsyncOpenAI, shelf: Shelf
) -> None:
    """P4, T8: killed behind the search, it is gone on with elsewhere and can cite what was found."""
    question, never = QUESTIONS[0], asyncio.Event()
    Turns(
        stack,
        searches(question),
        Script(Hold(never), stream(text("late"))),
        cites(question.answered_by),
    )
    seen = len(stack.model.requests)
    made = await client.responses.create(
        model="m", input=question.text, tools=[tool(shelf)], include=RESULTS, background=True
    )
    await eventually(lambda: len(stack.model.requests) == seen + 2, timeout=30)
    victims = [stack.worker(index) for index in (0, 1)]
    for victim in victims:
        os.kill(victim, signal.SIGKILL)
    for index, victim in enumerate(victims):
        await stack.replaced(index, victim)

    async def ended() -> bool:
        return (await client.responses.retrieve(made.id)).status == "completed"

    await eventually(ended, timeout=60)
    never.set()
    checked(await client.responses.retrieve(made.id, include=RESULTS), shelf, question)


@pytest.mark.parametrize("streamed", [False, True])
async def test_an_agent_asks_the_library(
    stack: Stack, client: openai.AsyncOpenAI, shelf: Shelf, streamed: bool
) -> None:
    """T8, M4: the Agents SDK sees results and citation, and sends them back in its next turn."""
    question = QUESTIONS[9]
    Turns(stack, searches(question), cites(question.answered_by), cites(question.answered_by))
    agent = Agent(
        name="librarian",
        model=OpenAIResponsesModel(model="m", openai_client=client),
        tools=[FileSearchTool([shelf.store], max_num_results=5, include_search_results=True)],
    )

    async def run(given: Any) -> Any:
        if not streamed:
            return await Runner.run(agent, given, run_config=RunConfig(tracing_disabled=True))
        running = Runner.run_streamed(agent, given, run_config=RunConfig(tracing_disabled=True))
        async for _ in running.stream_events():
            pass
        return running

    result = await run(question.text)
    assert result.final_output == BEFORE + BEHIND
    checked(result.raw_responses[0], shelf, question)
    again = await run([*result.to_input_list(), {"role": "user", "content": "Sure?"}])
    assert again.final_output == BEFORE + BEHIND
    [found] = [
        r for r in result.raw_responses[0].output[0].results if question.answered_by in r.filename
    ]
    cited_at(again.raw_responses[0].output[0], found)
