"""Filters in Postgres are those of `engine.api.filters`; whatever is asked, only its own tenant answers."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from typing import Any

import msgspec
import pytest_asyncio
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from engine.api.filters import matches, parse_attributes, parse_filter
from engine.ports import AttributeValue, Filter, Store
from storage.memory import MemoryStore
from storage.postgres.filtering import compiled
from storage.postgres.pool import Connection, Pool, open_pool
from storage.postgres.store import PostgresStore
from tests.support.fix_postgres import empty_tables
from tests.support.vector_stores import a_vector_store, attach, files_of, ingest

_SETTINGS = settings(
    max_examples=150,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.differing_executors],
)

# Few enough that they meet, and some that need quoting, or are ordered otherwise by a collation, in UTF-16,
# or as text.
_TEXTS = st.sampled_from(
    [
        "",
        "a",
        "B",
        "b",
        "ä",
        "z",
        "\uffff",
        "\U0001f600",
        "1",
        "true",
        'q"',
        "\\",
        "$v0",
        "\n\x1f",
        "a.b",
    ]
) | st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=5)
_NUMBERS = st.sampled_from([0.0, 1.0, -1.0, 0.1, 1e22, 1.7e308, 5e-324, 2.0**53 + 2]) | st.floats(
    allow_nan=False, allow_infinity=False
)
_VALUES = _TEXTS | _NUMBERS | st.booleans()
_ATTRIBUTES = st.dictionaries(_TEXTS, _VALUES, max_size=6)
_SINGLE = st.fixed_dictionaries(
    {
        "type": st.sampled_from(["eq", "ne", "gt", "gte", "lt", "lte"]),
        "key": _TEXTS,
        "value": _VALUES,
    }
)
_SEVERAL = st.fixed_dictionaries(
    {"type": st.sampled_from(["in", "nin"]), "key": _TEXTS, "value": st.lists(_VALUES, max_size=4)}
)
_FILTERS = st.recursive(
    _SINGLE | _SEVERAL,
    lambda inner: st.fixed_dictionaries(
        {
            "type": st.sampled_from(["and", "or"]),
            "filters": st.lists(inner, min_size=1, max_size=3),
        }
    ),
    max_leaves=6,
)


@pytest_asyncio.fixture
async def pool(owned_database: str) -> AsyncIterator[Pool]:
    async with open_pool(owned_database, min_size=1, max_size=2) as opened:
        yield opened


async def _in_postgres(
    pool: Pool, wanted: Filter, several: list[Mapping[str, AttributeValue]]
) -> list[bool | None]:
    path, variables = compiled(wanted)
    values = {
        "labels": [msgspec.json.encode(each).decode() for each in several],
        "path": path,
        "vars": variables.decode(),
    }

    async def work(connection: Connection, _attempt: int) -> list[bool | None]:
        cursor = await connection.execute(
            "SELECT jsonb_path_match(l.labels::jsonb, %(path)s::jsonpath, %(vars)s::jsonb)"
            " FROM unnest(%(labels)s::text[]) WITH ORDINALITY AS l (labels, number) ORDER BY l.number",
            values,
        )
        return [row[0] for row in await cursor.fetchall()]

    return await pool.run(work)


@_SETTINGS
@example(asked={"type": "ne", "key": "k", "value": 1}, several=[{}, {"k": "1"}, {"k": True}])
@example(asked={"type": "nin", "key": 'q"', "value": []}, several=[{}, {'q"': "\\"}])
@example(asked={"type": "gt", "key": "", "value": "\uffff"}, several=[{"": "\U0001f600"}])
@example(asked={"type": "gte", "key": "k", "value": False}, several=[{"k": True}, {"k": 0.0}])
@given(asked=_FILTERS, several=st.lists(_ATTRIBUTES, min_size=1, max_size=8))
async def test_a_path_is_true_where_the_filter_matches(
    pool: Pool, asked: dict[str, Any], several: list[dict[str, Any]]
) -> None:
    """T8: of missing attributes, of other types, of any key, and neither true nor false never."""
    wanted = parse_filter(asked, "filters")
    labels = [parse_attributes(each, "attributes") for each in several]
    expected = [matches(wanted, each) for each in labels]
    assert await _in_postgres(pool, wanted, list(labels)) == expected


_CORPUS = st.lists(
    st.tuples(st.sampled_from("ab"), st.sampled_from(["vs0", "vs1"]), _ATTRIBUTES),
    min_size=1,
    max_size=6,
)


async def _write(store: Store, corpus: list[tuple[str, str, dict[str, Any]]]) -> None:
    """Write the files of a corpus, which have the same ids in all stores; the text tells whose each is."""
    for tenant in "ab":
        for name in ("vs0", "vs1"):
            await a_vector_store(store, tenant, name)
    for number, (tenant, name, labels) in enumerate(corpus):
        attributes = parse_attributes(labels, "attributes")
        await attach(store, tenant, f"f{number % 3}", to=name, attributes=attributes)
        await ingest(store, f"of {tenant} in {name}")


@settings(_SETTINGS, max_examples=25)
@given(corpus=_CORPUS, asked=_FILTERS)
async def test_only_what_is_its_own_is_ever_found(
    owned_database: str,
    pool: Pool,
    corpus: list[tuple[str, str, dict[str, Any]]],
    asked: dict[str, Any],
) -> None:
    """X1: tenants with the same stores and files meet none of each other's, and both stores say the same."""
    await empty_tables(owned_database)
    wanted = parse_filter(asked, "filters")
    told: list[Any] = []
    for store in (MemoryStore(), PostgresStore(pool)):
        await _write(store, corpus)
        seen: list[Any] = []
        for tenant in "ab":
            for name in ("vs0", "vs1"):
                matching = await store.matching(tenant, name, wanted, limit=99)
                places = [(f"{each}/f{n}/0", 0) for each in ("vs0", "vs1") for n in range(3)]
                found = await store.found(tenant, places)
                texts = {
                    place: await store.chunk_texts(tenant, place[0], after=-1, limit=9)
                    for place in places
                }
                assert all(each.text.startswith(f"of {tenant} in") for each in found.values())
                assert all(f"of {tenant} in" in text for each in texts.values() for text in each)
                assert all(each.startswith(f"{name}/") for each in matching)
                assert {place for place, each in texts.items() if each} == set(found)
                listed = await files_of(store, tenant, name)
                seen.append((matching, found, texts, listed))
        told.append(seen)
    assert told[0] == told[1]
