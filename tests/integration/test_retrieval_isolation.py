"""Several tenants in one index: each finds all of his that fits, and nothing else (X1, T8)."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from typing import Any
from uuid import uuid4

import openai
import pytest
import pytest_asyncio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from engine.api.filters import matches, parse_filter
from storage.postgres.embedded import EmbeddedPostgres
from tests.support.embeddings_server import EmbeddingsServer
from tests.support.fix_postgres import create_database
from tests.support.jwts import AUDIENCE, Issuer
from tests.support.mcp_turns import Turns
from tests.support.replies import call, say, text
from tests.support.retrieving import retrieving_stack
from tests.support.scripted_model import ScriptedModel
from tests.support.shelves import INDEXES
from tests.support.stack import Stack, short_directory
from tests.support.tenants import bearer, speaking
from tests.support.wire import VECTOR_STORES, Wire

TENANTS, STORES, FILES = 3, 3, 6
COLOURS = ("red", "green", "blue")
# In every file of everybody, so that any of these finds all that there is to be found.
WORDS = ("apple", "river", "stone")

Attributes = dict[str, str | float | bool]


@dataclass
class Somebody:
    """A tenant: clients, and what is in each of the stores."""

    sdk: openai.AsyncOpenAI
    wire: Wire
    stores: dict[str, dict[str, Attributes]] = field(default_factory=dict)

    def wanted(self, stores: Sequence[str], given: Mapping[str, Any] | None) -> set[str]:
        """Return the ids of the files in these stores that fit a filter."""
        fits = None if given is None else parse_filter(given, "filters")
        return {
            file_id
            for store in stores
            for file_id, attributes in self.stores[store].items()
            if fits is None or matches(fits, attributes)
        }


@pytest_asyncio.fixture(scope="module", params=INDEXES)
async def stack(
    request: pytest.FixtureRequest, postgres_server: EmbeddedPostgres, stage: ScriptedModel
) -> AsyncIterator[tuple[Stack, Issuer]]:
    """A stack that retrieves for whoever has a token, once with each index."""
    issuer = Issuer()
    async with EmbeddingsServer() as server:
        with short_directory() as directory:
            keys = directory / "jwks.json"
            keys.write_text(issuer.keys)
            async with retrieving_stack(
                stage,
                await create_database(postgres_server),
                server,
                headers=bearer(issuer.token("somebody")),
                index=INDEXES[request.param],
                tenancy={"mode": "required", "source": "jwt"},
                jwt={"issuer": issuer.name, "audiences": AUDIENCE, "jwks_file": keys},
            ) as running:
                yield running, issuer


@pytest_asyncio.fixture(scope="module")
async def people(stack: tuple[Stack, Issuer]) -> AsyncIterator[list[Somebody]]:
    """Tenants with stores, whose files all say the same and are in several of them."""
    running, issuer = stack
    randomly = random.Random(7)
    async with AsyncExitStack() as parts:
        everybody = []
        for _ in range(TENANTS):
            token = issuer.token(f"tenant-{uuid4()}")
            sdk = openai.AsyncOpenAI(
                base_url=f"{running.url}/v1", api_key=token, max_retries=0, timeout=60
            )
            await parts.enter_async_context(sdk)
            wire = await parts.enter_async_context(speaking(running, bearer(token)))
            everybody.append(Somebody(sdk, wire))
        await asyncio.gather(*(_settle(person, randomly) for person in everybody))
        yield everybody


async def _settle(person: Somebody, randomly: random.Random) -> None:
    """Upload files, and put some of them into each store."""
    content = " ".join(WORDS).encode()
    uploads = (
        person.sdk.files.create(file=(f"{number}.txt", content), purpose="assistants")
        for number in range(FILES)
    )
    files = [file.id for file in await asyncio.gather(*uploads)]
    for number in range(STORES):
        store = await person.sdk.vector_stores.create(name=f"store {number}")
        held = {file: _attributes(randomly) for file in randomly.sample(files, FILES - 2)}
        given: Any = [{"file_id": file, "attributes": held[file]} for file in held]
        batch = await person.sdk.vector_stores.file_batches.create_and_poll(
            store.id, files=given, poll_interval_ms=200
        )
        assert batch.file_counts.completed == len(held)
        person.stores[store.id] = held


def _attributes(randomly: random.Random) -> Attributes:
    made: Attributes = {"size": float(randomly.randrange(4)), "new": randomly.random() < 0.5}
    if randomly.random() < 0.7:
        made["colour"] = randomly.choice(COLOURS)
    return made


def _comparison(types: Sequence[str], key: str, values: Any) -> st.SearchStrategy[Any]:
    return st.fixed_dictionaries(
        {"type": st.sampled_from(types), "key": st.just(key), "value": values}
    )


_COLOUR, _SIZE = st.sampled_from([*COLOURS, "' OR 1=1"]), st.integers(0, 4)
_FILTER = st.recursive(
    st.one_of(
        _comparison(["eq", "ne"], "colour", _COLOUR),
        _comparison(["in", "nin"], "colour", st.lists(_COLOUR, max_size=3)),
        _comparison(["eq", "ne", "gt", "gte", "lt", "lte"], "size", _SIZE),
        _comparison(["eq", "ne"], "new", st.booleans()),
        _comparison(["eq", "ne"], "tenant", st.just("anybody")),
    ),
    lambda inner: st.fixed_dictionaries(
        {
            "type": st.sampled_from(["and", "or"]),
            "filters": st.lists(inner, min_size=1, max_size=3),
        }
    ),
    max_leaves=5,
)
_QUERY = st.lists(st.sampled_from(WORDS), min_size=1, max_size=3).map(" ".join)
_PERSON, _STORE = st.integers(0, TENANTS - 1), st.integers(0, STORES - 1)
_ANY = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow], database=None)


@settings(_ANY, max_examples=40)
@given(
    person=_PERSON, store=_STORE, query=_QUERY | st.lists(_QUERY, min_size=1, max_size=3),
    filters=st.none() | _FILTER, ranker=st.sampled_from(["auto", "none"]),
)  # fmt: skip
async def test_a_search_finds_what_is_the_tenants_and_in_the_store(
    people: list[Somebody], person: int, store: int, query: Any, filters: Any, ranker: str
) -> None:
    """X1, T8: over random tenants, stores, filters and queries, through the API."""
    somebody = people[person]
    name = list(somebody.stores)[store]
    more: Any = {"ranking_options": {"ranker": ranker}}
    if filters is not None:
        more["filters"] = filters
    page = await somebody.sdk.vector_stores.search(name, query=query, max_num_results=50, **more)
    found = [result.file_id for result in page.data]
    assert len(found) == len(set(found))
    assert set(found) == somebody.wanted([name], filters)


@settings(_ANY, max_examples=15)
@given(
    person=_PERSON, stores=st.lists(_STORE, min_size=1, max_size=STORES, unique=True),
    queries=st.lists(_QUERY, min_size=1, max_size=3), filters=st.none() | _FILTER,
)  # fmt: skip
async def test_the_tool_finds_what_is_the_tenants_and_in_its_stores(
    stack: tuple[Stack, Issuer],
    people: list[Somebody],
    person: int,
    stores: list[int],
    queries: list[str],
    filters: Any,
) -> None:
    """X1, T8: the same through `file_search`: what the client is shown, and what the model is told."""
    running, _ = stack
    somebody = people[person]
    names = [list(somebody.stores)[store] for store in stores]
    asks = call("file_search", json.dumps({"queries": queries}))
    turns = Turns(running, say(asks), say(text("ok")))
    tool: Any = {"type": "file_search", "vector_store_ids": names, "max_num_results": 50}
    tool["filters"] = filters
    response: Any = await somebody.sdk.responses.create(
        model="m",
        input="hi",
        tools=[tool],
        include=["file_search_call.results"],
    )
    found = {result.file_id for result in response.output[0].results}
    assert found == somebody.wanted(names, filters)
    [told] = turns.outputs(1)
    others = {
        file
        for another in people
        if another is not somebody
        for held in another.stores.values()
        for file in held
    }
    assert all(file in told for file in found)
    assert not any(file in told for file in others)


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/{store}/search", {"query": "apple"}),
        ("/{store}/files", {"file_id": "{my file}"}),
        ("/{my store}/files", {"file_id": "{file}"}),
        ("/{store}/file_batches", {"file_ids": ["{my file}"]}),
        ("/{my store}/file_batches", {"file_ids": ["{my file}", "{file}"]}),
        ("", {"file_ids": ["{file}"]}),
        (
            "responses",
            {
                "model": "m",
                "input": "hi",
                "tools": [{"type": "file_search", "vector_store_ids": ["{my store}", "{store}"]}],
            },
        ),
    ],
    ids=["search", "attach to", "attach", "batch to", "batch", "create with", "tool"],
)
async def test_anothers_ids_are_nobodys(
    people: list[Somebody], path: str, body: dict[str, Any]
) -> None:
    """X1: what another tenant has, answers in the same bytes as what never was."""
    mine, others = people[0], people[1]
    my_store, held = next(iter(mine.stores.items()))
    own = {"{my store}": my_store, "{my file}": next(iter(held))}

    async def asked(store: str, file: str) -> tuple[int, bytes]:
        names = {**own, "{store}": store, "{file}": file}
        url, sent = path, json.dumps(body)
        for place, name in names.items():
            url, sent = url.replace(place, name), sent.replace(place, name)
        url = "/v1/responses" if url == "responses" else VECTOR_STORES + url
        seen = await mine.wire.ask("POST", url, json=json.loads(sent))
        # The one thing that may differ is the name itself, which the client sent.
        return seen.status, bytes(seen.raw).replace(store.encode(), b"S").replace(
            file.encode(), b"F"
        )

    for store, files in others.stores.items():
        for file in [*files][:2]:
            never = await asked("vs_" + uuid4().hex, "file-" + uuid4().hex)
            assert never[0] in (400, 404)
            assert await asked(store, file) == never
    listed = await mine.wire.ask("GET", VECTOR_STORES)
    assert {store["id"] for store in listed.json["data"]} == set(mine.stores)
