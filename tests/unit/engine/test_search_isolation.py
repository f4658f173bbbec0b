"""Whatever the index holds, a search finds what is its tenant's and fits, and all of it."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from hypothesis import given, settings
from hypothesis import strategies as st

from engine.api.filters import matches
from engine.ports import Comparison, Compound, Filter, IndexedChunk
from tests.support.corpus import Corpus
from tests.support.retrieval import hashed

TENANTS, STORES = ("ann", "bob"), ("s", "t")


@dataclass(frozen=True)
class File:
    """A file with one chunk; both tenants have stores of the same names."""

    tenant: str
    store: str
    colour: str | None
    size: float
    gone: bool

    @property
    def attributes(self) -> dict[str, str | float]:
        return (
            {"size": self.size}
            if self.colour is None
            else {"size": self.size, "colour": self.colour}
        )


FILE = st.builds(
    File,
    tenant=st.sampled_from(TENANTS),
    store=st.sampled_from(STORES),
    colour=st.sampled_from(["red", "blue", None]),
    size=st.sampled_from([0.0, 1.0, 2.0]),
    gone=st.booleans(),
)
COMPARISON = st.one_of(
    st.builds(
        Comparison,
        st.sampled_from(["eq", "ne"]),
        st.just("colour"),
        st.sampled_from(["red", "blue"]),
    ),
    st.builds(
        Comparison, st.sampled_from(["gt", "gte", "lt", "lte"]), st.just("size"), st.just(1.0)
    ),
    st.builds(Comparison, st.sampled_from(["in", "nin"]), st.just("size"), st.just((0.0, 2.0))),
)
FILTER: st.SearchStrategy[Filter] = st.recursive(
    COMPARISON,
    lambda inner: st.builds(
        Compound, st.sampled_from(["and", "or"]), st.lists(inner, min_size=1, max_size=3).map(tuple)
    ),
    max_leaves=5,
)


@settings(deadline=None, max_examples=40)
@given(
    files=st.lists(FILE, max_size=12),
    stores=st.lists(st.sampled_from(STORES), min_size=1, max_size=2, unique=True),
    wanted=st.none() | FILTER,
    ranker=st.sampled_from(["none", "auto"]),
)
def test_nothing_of_others_is_ever_found(
    files: list[File], stores: list[str], wanted: Filter | None, ranker: str
) -> None:
    """X1, T8: over random tenants, stores and filters, with an index in which everybody has everything."""
    asyncio.run(_check(files, stores, wanted, ranker))


async def _check(files: list[File], stores: list[str], wanted: Filter | None, ranker: str) -> None:
    corpus = Corpus()
    for tenant in TENANTS:
        for store in STORES:
            await corpus.vector_store(store, tenant)
    for number, file in enumerate(files):
        await _attached(corpus, file, f"text of file {number}")
    for tenant in TENANTS:
        found = await corpus.found(
            "text of file", tenant=tenant, stores=stores, filters=wanted, ranker=ranker, limit=50
        )
        assert sorted(result.text for result in found) == sorted(
            f"text of file {number}"
            for number, file in enumerate(files)
            if file.tenant == tenant
            and file.store in stores
            and not file.gone
            and (wanted is None or matches(wanted, file.attributes))
        )


async def _attached(corpus: Corpus, file: File, text: str) -> None:
    """Attach a file, and tell the index that all stores of all tenants have it."""
    file_id = await corpus.file(file.tenant)
    attachment = await corpus.attach(
        file.store, text, tenant=file.tenant, file_id=file_id, **file.attributes
    )
    for tenant in TENANTS:
        for store in STORES:
            chunk = IndexedChunk(0, text, hashed(text))
            await corpus.index.insert(tenant, store, attachment, [chunk])
    if file.gone:
        await corpus.store.detach(file.tenant, file.store, file_id)
