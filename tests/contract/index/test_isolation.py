"""Nobody finds what is not his (rule X1): not another tenant's, another store's, or another model's."""

from __future__ import annotations

import uuid
from collections import Counter

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from engine.ports import VectorIndex
from tests.contract.index.conftest import OpenIndex
from tests.support.vectors import a_chunk, unit

QUESTION = unit(1, 1, 1, 1)
# Names as somebody would choose them who wants to break out of a filter, and any others.
_STRANGE = [
    "",
    " ",
    "'",
    '"',
    "\\",
    '\\"',
    '" or "" == "',
    "%",
    "_",
    "{x}",
    "a",
    "aa",
    "é",
    "e\u0301",
    "🦊",
]
_NAMES = st.sampled_from(_STRANGE) | st.text(
    st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=0, max_size=20
)
_PLACES = st.tuples(_NAMES, _NAMES, _NAMES)


@settings(
    max_examples=15,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(places=st.lists(_PLACES, min_size=2, max_size=6, unique=True))
async def test_tenants_and_stores_of_any_names_are_apart(
    index: VectorIndex, places: list[tuple[str, str, str]]
) -> None:
    """X1: each (tenant, store) finds its own attachments and no other, by vector and by words."""
    here = uuid.uuid4().hex
    # An empty tenant is none; a store in front of which something stands is any store.
    places = [(f"{here}{tenant}", store, name) for tenant, store, name in places]
    for tenant, store, name in places:
        await index.insert(tenant, store, name, [a_chunk(0, "apple"), a_chunk(1, "pear")])
    expected = Counter((tenant, store) for tenant, store, _ in places)
    for tenant, store in expected:
        own = {name for of, at, name in places if (of, at) == (tenant, store)}
        for among in (None, [name for *_, name in places]):
            hits = await index.by_vector(tenant, store, QUESTION, limit=99, attachments=among)
            assert Counter(hit.attachment for hit in hits) == dict.fromkeys(own, 2)
            hits = await index.by_words(tenant, store, "apple", limit=99, attachments=among)
            assert Counter(hit.attachment for hit in hits) == dict.fromkeys(own, 1)
    tenant, store, name = places[0]
    await index.remove(tenant, store, [name for *_, name in places])
    for of, at, other in places:
        assert await index.count(of, at, other) == (0 if (of, at) == (tenant, store) else 2)


async def test_names_that_run_together_are_apart(index: VectorIndex, tenant: str) -> None:
    """X1: where one name ends and the next begins makes a difference."""
    await index.insert(f"{tenant}a", "b", "c", [a_chunk(0, "apple")])
    for of, store, attachment in (
        (tenant, "ab", "c"),
        (f"{tenant}ab", "", "c"),
        (f"{tenant}a", "bc", ""),
    ):
        assert await index.count(of, store, attachment) == 0
        assert await index.by_vector(of, store, QUESTION, limit=9) == []


async def test_models_do_not_mix(open_index: OpenIndex, tenant: str) -> None:
    """Vectors of two models are not compared, also where they are of one size."""
    async with open_index("first") as first, open_index("second") as second:
        await first.insert(tenant, "s", "a", [a_chunk(0, "apple")])
        assert await second.by_vector(tenant, "s", QUESTION, limit=9) == []
        assert await second.by_words(tenant, "s", "apple", limit=9) == []
        assert await second.count(tenant, "s", "a") == 0
        await second.insert(tenant, "s", "b", [a_chunk(0, "apple")])
        for index, name in ((first, "a"), (second, "b")):
            [hit] = await index.by_vector(tenant, "s", QUESTION, limit=9)
            assert hit.attachment == name


async def test_sizes_of_vectors_do_not_mix(open_index: OpenIndex, tenant: str) -> None:
    """A model that begins to answer with other vectors: what is put in again is found by those alone."""
    async with open_index("changing") as one, open_index("changing") as other:
        await one.insert(tenant, "s", "a", [a_chunk(0, "apple"), a_chunk(1, "apple")])
        small = unit(1, 1)
        await other.insert(tenant, "s", "a", [a_chunk(0, "pear", small)])
        await other.insert(tenant, "s", "b", [a_chunk(0, "apple", small)])
        for index in (one, other):
            [hit] = await index.by_vector(tenant, "s", QUESTION, limit=9)
            assert (hit.attachment, hit.number) == ("a", 1)
            hits = await index.by_vector(tenant, "s", small, limit=9)
            assert [(hit.attachment, hit.number) for hit in hits] == [("a", 0), ("b", 0)]
            assert await index.count(tenant, "s", "a") == 2
            hits = await index.by_words(tenant, "s", "apple", limit=9)
            assert {(hit.attachment, hit.number) for hit in hits} == {("a", 1), ("b", 0)}
        await one.remove(tenant, "s", ["a", "b"])
        assert await other.by_vector(tenant, "s", small, limit=9) == []
