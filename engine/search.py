"""Searches of vector stores: by vectors and by words at once, put together, and read in the store.

The index says where, the store says what: a place that the store does not have under this tenant, or not as
part of a completed file, is dropped and the next best takes its place (rule X1). Filters are resolved to
attachments by the store, and handed to the index (rule T8).
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Iterable, Mapping, Sequence

import msgspec

from engine.api.filters import matches
from engine.errors import InvalidRequest, NotFound
from engine.fusion import Place, best_of, blended, fused, without
from engine.ports import (
    Embedder,
    Filter,
    FoundChunk,
    Hit,
    SearchAsked,
    SearchResult,
    VectorIndex,
    VectorStoreStore,
)

# Of the index, for one query: enough for ranks that mean something.
_LEAST_HITS = 50
_HITS_FOR_EACH = 3
_MOST_HITS = 1000
# What a filter may leave of a store, and how much of that one question to the index names.
_MOST_MATCHING = 100_000
_MATCHING_AT_ONCE = 10_000
_AT_ONCE = 8
_WIDER = 4


class VectorSearch:
    """`engine.ports.Search` over a store, an index and an embedder."""

    def __init__(self, store: VectorStoreStore, index: VectorIndex, embedder: Embedder) -> None:
        self._store = store
        self._index = index
        self._embedder = embedder

    async def search(self, tenant: str, asked: SearchAsked) -> Sequence[SearchResult]:
        """Return the best chunks; see the port."""
        scopes, vectors = await asyncio.gather(
            self._scopes(tenant, asked), self._vectors(asked.queries)
        )
        await self._store.touch_vector_stores(tenant, asked.stores)
        depth = min(max(asked.limit * _HITS_FOR_EACH, _LEAST_HITS), _MOST_HITS)
        while True:
            looking = _Looking(self._index, tenant, scopes, depth)
            rankings = await looking.rankings(asked, vectors)
            results = await self._best(tenant, asked, rankings)
            # What was dropped may have stood before what would have done.
            if len(results) >= asked.limit or not looking.cut or depth == _MOST_HITS:
                return results
            depth = min(depth * 4, _MOST_HITS)

    async def _scopes(self, tenant: str, asked: SearchAsked) -> list[_Scope]:
        stores = list(dict.fromkeys(asked.stores))
        found = await asyncio.gather(
            *(self._store.get_vector_store(tenant, each) for each in stores)
        )
        for wanted, store in zip(stores, found, strict=True):
            if store is None:
                raise NotFound(f"Vector store with id '{wanted}' not found.")
            if store.expired:
                raise NotFound(f"Vector store '{wanted}' has expired; its files are gone.")
        if asked.filters is None:
            return [_Scope(each, None) for each in stores]
        filters = asked.filters
        each_scope = await asyncio.gather(*(self._matching(tenant, s, filters) for s in stores))
        return [scope for scopes in each_scope for scope in scopes]

    async def _matching(self, tenant: str, store: str, filters: Filter) -> list[_Scope]:
        found = await self._store.matching(tenant, store, filters, limit=_MOST_MATCHING + 1)
        if len(found) > _MOST_MATCHING:
            raise InvalidRequest(
                f"The filter leaves more than {_MOST_MATCHING} files of '{store}': narrow it.",
                param="filters",
                code="too_many_files",
            )
        firsts = range(0, len(found), _MATCHING_AT_ONCE)
        return [_Scope(store, found[first : first + _MATCHING_AT_ONCE]) for first in firsts]

    async def _vectors(self, queries: Sequence[str]) -> list[bytes]:
        vectors: list[bytes] = []
        for first in range(0, len(queries), self._embedder.at_once):
            some = queries[first : first + self._embedder.at_once]
            vectors += await self._embedder.embed(some, "query")
        return vectors

    async def _best(
        self, tenant: str, asked: SearchAsked, rankings: Sequence[_Rankings]
    ) -> list[SearchResult]:
        """Return the best of what the store has; what it has not is taken out of the rankings."""
        known: dict[Place, FoundChunk] = {}
        gone: set[Place] = set()
        window = asked.limit
        while True:
            scores = best_of([ranking.scores(asked, gone) for ranking in rankings])
            order = sorted(scores, key=lambda place: (-scores[place], place))
            best = [place for place in order[:window] if scores[place] >= asked.threshold]
            unknown = [place for place in best if place not in known]
            found = await self._store.found(tenant, unknown) if unknown else {}
            known |= {place: chunk for place, chunk in found.items() if _is_wanted(chunk, asked)}
            left_out = {place for place in best if place not in known}
            left_out |= _twice([known[place] for place in best if place in known])
            if not left_out:
                return [_result(known[place], scores[place]) for place in best[: asked.limit]]
            gone |= left_out
            # Of what the index is behind with there is seldom only one.
            window *= _WIDER


class _Scope(msgspec.Struct, frozen=True):
    """A store, or some attachments of it."""

    store: str
    attachments: list[str] | None


class _Rankings(msgspec.Struct, frozen=True):
    """What the index has for one query, best first: cosines, and weights of words."""

    by_vector: Mapping[Place, float]
    by_words: Mapping[Place, float]

    def scores(self, asked: SearchAsked, gone: set[Place]) -> dict[Place, float]:
        """Return the score of each place that is not gone, 0 to 1."""
        by_vector = without(self.by_vector, gone)
        if asked.ranker == "none":
            return {place: min(1.0, max(0.0, cosine)) for place, cosine in by_vector.items()}
        by_words = without(self.by_words, gone)
        if asked.weights is None:
            return blended(by_vector, by_words)
        of_vectors, of_words = asked.weights
        return fused([(list(by_vector), of_vectors), (list(by_words), of_words)])


class _Looking:
    """One look into the index, `depth` hits for a query in each scope.

    `cut`: some ranking is as long as that, so there may be more.
    """

    def __init__(
        self, index: VectorIndex, tenant: str, scopes: Sequence[_Scope], depth: int
    ) -> None:
        self.cut = False
        self._index = index
        self._tenant = tenant
        self._scopes = scopes
        self._depth = depth
        self._room = asyncio.Semaphore(_AT_ONCE)

    async def rankings(self, asked: SearchAsked, vectors: Sequence[bytes]) -> list[_Rankings]:
        """Return the rankings of each query; raises IndexUnavailable."""
        return await asyncio.gather(
            *(
                self._ranked(asked, query, vector)
                for query, vector in zip(asked.queries, vectors, strict=True)
            )
        )

    async def _ranked(self, asked: SearchAsked, query: str, vector: bytes) -> _Rankings:
        of_vectors, of_words = asked.weights or (1.0, 1.0)
        alone = asked.ranker == "none"
        by_vector, by_words = await asyncio.gather(
            self._merged(self._by_vector(vector) if alone or of_vectors else ()),
            self._merged(self._by_words(query) if of_words and not alone else ()),
        )
        return _Rankings(_scores(by_vector), _scores(by_words))

    def _by_vector(self, vector: bytes) -> Iterable[Awaitable[list[Hit]]]:
        return [
            self._index.by_vector(
                self._tenant,
                scope.store,
                vector,
                limit=self._depth,
                attachments=scope.attachments,
            )
            for scope in self._scopes
        ]

    def _by_words(self, query: str) -> Iterable[Awaitable[list[Hit]]]:
        return [
            self._index.by_words(
                self._tenant, scope.store, query, limit=self._depth, attachments=scope.attachments
            )
            for scope in self._scopes
        ]

    async def _merged(self, looks: Iterable[Awaitable[list[Hit]]]) -> list[Hit]:
        """Return the best hits of all scopes, best first."""
        hits: list[Hit] = []
        for found in await asyncio.gather(*(self._bounded(look) for look in looks)):
            self.cut = self.cut or len(found) >= self._depth
            hits += found
        return sorted(hits, key=lambda hit: (-hit.score, hit.attachment, hit.number))

    async def _bounded(self, look: Awaitable[list[Hit]]) -> list[Hit]:
        async with self._room:
            return await look


def _scores(hits: Sequence[Hit]) -> dict[Place, float]:
    return {(hit.attachment, hit.number): hit.score for hit in hits}


def _is_wanted(chunk: FoundChunk, asked: SearchAsked) -> bool:
    """Tell whether the store, too, has a chunk where it is looked for: the index may be behind."""
    if chunk.store not in asked.stores:
        return False
    return asked.filters is None or matches(asked.filters, chunk.attributes)


def _twice(best: Sequence[FoundChunk]) -> set[Place]:
    """Return the places of chunks that stand before: the same text of a file, out of another store."""
    seen: set[tuple[str, str]] = set()
    again: set[Place] = set()
    for chunk in best:
        what = (chunk.file_id, chunk.text)
        if what in seen:
            again.add((chunk.attachment, chunk.number))
        seen.add(what)
    return again


def _result(chunk: FoundChunk, score: float) -> SearchResult:
    return SearchResult(
        store=chunk.store,
        file_id=chunk.file_id,
        filename=chunk.filename,
        number=chunk.number,
        score=score,
        text=chunk.text,
        attributes=chunk.attributes,
    )
