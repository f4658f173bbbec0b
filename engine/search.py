"""Searches of vector stores: by vectors and by words at once, put together, and read in the store.

The index says where, the store says what: a place that the store does not have under this tenant, or not as
part of a completed file, is dropped and the next best takes its place (rule X1). Filters are resolved to
attachments by the store, and handed to the index (rule T8).
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterable, Mapping, Sequence
from heapq import nsmallest
from typing import Any

import msgspec

from engine.api.filters import matches
from engine.errors import InvalidRequest, NotFound, SearchTimedOut
from engine.fusion import Place, best_of, blended, blended_reach, fused, reach, without
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
from engine.together import both, together

# Of the index, for one query: enough for ranks that mean something.
_LEAST_HITS = 50
_HITS_FOR_EACH = 3
_MOST_HITS = 1000
_DEEPER = 4
_ROUNDING = 1e-9
# What a filter may leave of a store, and how much of that one question to the index names.
_MOST_MATCHING = 100_000
_MATCHING_AT_ONCE = 10_000
_AT_ONCE = 8
_WIDER = 4
# Texts that are read ahead of what is returned.
_MOST_TEXTS = 500


class VectorSearch:
    """`engine.ports.Search` over a store, an index and an embedder, each search within `timeout` seconds."""

    def __init__(
        self,
        store: VectorStoreStore,
        index: VectorIndex,
        embedder: Embedder,
        *,
        timeout: float = 30.0,
    ) -> None:
        self._store = store
        self._index = index
        self._embedder = embedder
        self._timeout = timeout

    async def search(self, tenant: str, asked: SearchAsked) -> Sequence[SearchResult]:
        """Return the best chunks; see the port."""
        try:
            async with asyncio.timeout(self._timeout):
                return await self._found(tenant, asked)
        except TimeoutError as error:
            raise SearchTimedOut(self._timeout) from error

    async def _found(self, tenant: str, asked: SearchAsked) -> list[SearchResult]:
        scopes, vectors = await both(self._scopes(tenant, asked), self._vectors(asked.queries))
        await self._store.touch_vector_stores(tenant, asked.stores)
        depth = min(max(asked.limit * _HITS_FOR_EACH, _LEAST_HITS), _MOST_HITS)
        while True:
            looking = _Looking(self._index, tenant, scopes, depth)
            rankings = await looking.rankings(asked, vectors)
            results, gone = await self._best(tenant, asked, rankings)
            if len(results) >= asked.limit or depth == _MOST_HITS:
                return results
            # What was dropped may have stood before what would have done.
            if not any(ranking.has_more(asked, gone, depth) for ranking in rankings):
                return results
            depth = min(depth * _DEEPER, _MOST_HITS)

    async def _scopes(self, tenant: str, asked: SearchAsked) -> list[_Scope]:
        stores = list(dict.fromkeys(asked.stores))
        found = await together(self._store.get_vector_store(tenant, each) for each in stores)
        for wanted, store in zip(stores, found, strict=True):
            if store is None:
                raise NotFound(f"Vector store with id '{wanted}' not found.")
            if store.expired:
                raise NotFound(f"Vector store '{wanted}' has expired; its files are gone.")
        if asked.filters is None:
            return [_Scope(each, None) for each in stores]
        filters = asked.filters
        each_scope = await together(self._matching(tenant, each, filters) for each in stores)
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
        return [
            _Scope(store, frozenset(found[first : first + _MATCHING_AT_ONCE])) for first in firsts
        ]

    async def _vectors(self, queries: Sequence[str]) -> list[bytes]:
        vectors: list[bytes] = []
        for first in range(0, len(queries), self._embedder.at_once):
            some = queries[first : first + self._embedder.at_once]
            vectors += await self._embedder.embed(some, "query")
        return vectors

    async def _best(
        self, tenant: str, asked: SearchAsked, rankings: Sequence[_Rankings]
    ) -> tuple[list[SearchResult], set[Place]]:
        """Return the best of what the store has, and what was taken out of the rankings: it has not that."""
        known: dict[Place, FoundChunk | None] = {}
        gone: set[Place] = set()
        window = asked.limit
        while True:
            scores = await _scores(asked, rankings, gone)
            order = _best_first(scores, asked.threshold, window)
            if any(place not in known for place in order[: asked.limit]):
                unread = [place for place in order if place not in known]
                read = await self._read(tenant, asked, unread)
                known |= read
                # Of what is left out there is seldom only one; but texts are not read by the thousand.
                texts = sum(chunk is not None for chunk in read.values())
                window = min(window * _WIDER, _MOST_TEXTS * len(read) // max(1, texts))
            left_out = _left_out([(place, known[place]) for place in order if place in known])
            if not left_out:
                chunks = ((known[place], scores[place]) for place in order[: asked.limit])
                return [_result(chunk, score) for chunk, score in chunks if chunk is not None], gone
            gone |= left_out
            known |= dict.fromkeys(left_out)

    async def _read(
        self, tenant: str, asked: SearchAsked, places: Sequence[Place]
    ) -> dict[Place, FoundChunk | None]:
        """Return what the store has there, None where it has nothing that is wanted."""
        found = await self._store.found(tenant, places)
        wanted = {place: chunk for place, chunk in found.items() if _is_wanted(chunk, asked)}
        return {place: wanted.get(place) for place in places}


class _Scope(msgspec.Struct, frozen=True):
    """A store, or some attachments of it: one set for all looks, so that an index can know it again."""

    store: str
    attachments: frozenset[str] | None


class _Ranking(msgspec.Struct, frozen=True):
    """Hits of all scopes, best first; `deeper` is the best score that one behind them can have, if any is."""

    hits: list[Hit]
    deeper: float | None

    def scores(self, gone: set[Place]) -> dict[Place, float]:
        """Return what the index says of those that are not gone, best first."""
        return without({(hit.attachment, hit.number): hit.score for hit in self.hits}, gone)


class _Rankings(msgspec.Struct, frozen=True):
    """What the index has for one query."""

    by_vector: _Ranking
    by_words: _Ranking

    def scores(self, asked: SearchAsked, gone: set[Place]) -> dict[Place, float]:
        """Return the score of each place that is not gone, 0 to 1."""
        if asked.ranker == "none":
            near = self.by_vector.scores(gone)
            return {place: _score_of(cosine) for place, cosine in near.items()}
        if asked.weights is None:
            return blended(self.by_vector.scores(gone), self.by_words.scores(gone))
        ranked = self._weighed(asked.weights, gone)
        return fused([(places, weight) for places, weight, _ in ranked])

    def has_more(self, asked: SearchAsked, gone: set[Place], depth: int) -> bool:
        """Tell whether a look that goes deeper than `depth` can find what passes the threshold."""
        deeper = (self.by_vector.deeper, self.by_words.deeper)
        if asked.ranker == "none":
            return deeper[0] is not None and _score_of(deeper[0]) >= asked.threshold
        if deeper == (None, None):
            return False
        scores = self.scores(asked, gone)
        below = [place for place, score in scores.items() if score < asked.threshold]
        if asked.weights is None:
            cosines, words = self.by_vector.scores(gone), self.by_words.scores(gone)
            most = blended_reach(cosines, words, deeper, below)
        else:
            most = self._reach(asked.weights, gone, depth, below)
        return most >= asked.threshold - _ROUNDING

    def _reach(
        self, weights: tuple[float, float], gone: set[Place], depth: int, below: list[Place]
    ) -> float:
        # Those that are gone take no rank, so what comes next may stand that much further up.
        rank = max(1, depth + 1 - len(gone))
        rankings = [
            (places, weight, None if ranking.deeper is None else rank)
            for places, weight, ranking in self._weighed(weights, gone)
        ]
        return reach(rankings, below)

    def _weighed(
        self, weights: tuple[float, float], gone: set[Place]
    ) -> list[tuple[list[Place], float, _Ranking]]:
        return [
            (list(ranking.scores(gone)), weight, ranking)
            for ranking, weight in zip((self.by_vector, self.by_words), weights, strict=True)
        ]


class _Looking:
    """One look into the index, `depth` hits for a query in each scope."""

    def __init__(
        self, index: VectorIndex, tenant: str, scopes: Sequence[_Scope], depth: int
    ) -> None:
        self._index = index
        self._tenant = tenant
        self._scopes = scopes
        self._depth = depth
        self._room = asyncio.Semaphore(_AT_ONCE)

    async def rankings(self, asked: SearchAsked, vectors: Sequence[bytes]) -> list[_Rankings]:
        """Return the rankings of each query; raises IndexUnavailable."""
        return await together(
            self._ranked(asked, query, vector)
            for query, vector in zip(asked.queries, vectors, strict=True)
        )

    async def _ranked(self, asked: SearchAsked, query: str, vector: bytes) -> _Rankings:
        of_vectors, of_words = asked.weights or (1.0, 1.0)
        alone = asked.ranker == "none"
        return _Rankings(
            *await both(
                self._merged(self._by_vector(vector) if alone or of_vectors else ()),
                self._merged(self._by_words(query) if of_words and not alone else ()),
            )
        )

    def _by_vector(self, vector: bytes) -> Iterable[Coroutine[Any, Any, list[Hit]]]:
        return (self._of_vector(scope, vector) for scope in self._scopes)

    def _by_words(self, query: str) -> Iterable[Coroutine[Any, Any, list[Hit]]]:
        return (self._of_words(scope, query) for scope in self._scopes)

    async def _of_vector(self, scope: _Scope, vector: bytes) -> list[Hit]:
        async with self._room:
            return await self._index.by_vector(
                self._tenant,
                scope.store,
                vector,
                limit=self._depth,
                attachments=scope.attachments,
            )

    async def _of_words(self, scope: _Scope, query: str) -> list[Hit]:
        async with self._room:
            return await self._index.by_words(
                self._tenant, scope.store, query, limit=self._depth, attachments=scope.attachments
            )

    async def _merged(self, looks: Iterable[Coroutine[Any, Any, list[Hit]]]) -> _Ranking:
        """Return the best hits of all scopes, best first."""
        found = await together(looks)
        # A scope with as many hits as were asked for may have more, none of them better than its last.
        lasts = [hits[-1].score for hits in found if len(hits) >= self._depth]
        hits = [hit for some in found for hit in some]
        hits.sort(key=lambda hit: (-hit.score, hit.attachment, hit.number))
        return _Ranking(hits, max(lasts, default=None))


def _score_of(cosine: float) -> float:
    return min(1.0, max(0.0, cosine))


def _is_wanted(chunk: FoundChunk, asked: SearchAsked) -> bool:
    """Tell whether the store, too, has a chunk where it is looked for: the index may be behind."""
    if chunk.store not in asked.stores:
        return False
    return asked.filters is None or matches(asked.filters, chunk.attributes)


async def _scores(
    asked: SearchAsked, rankings: Sequence[_Rankings], gone: set[Place]
) -> dict[Place, float]:
    """Return the best score of each place for any query; others are served between two of these."""
    scored = []
    for ranking in rankings:
        scored.append(ranking.scores(asked, gone))
        await asyncio.sleep(0)
    return best_of(scored)


def _best_first(scores: Mapping[Place, float], threshold: float, most: int) -> list[Place]:
    """Return so many places that pass the threshold, best first."""
    passing = (place for place, score in scores.items() if score >= threshold)
    return nsmallest(most, passing, key=lambda place: (-scores[place], place))


def _left_out(best: Iterable[tuple[Place, FoundChunk | None]]) -> set[Place]:
    """Return the places that are no result: nothing is there, or what stands before, out of another store."""
    seen: set[tuple[str, str]] = set()
    left_out: set[Place] = set()
    for place, chunk in best:
        if chunk is None or (chunk.file_id, chunk.text) in seen:
            left_out.add(place)
        else:
            seen.add((chunk.file_id, chunk.text))
    return left_out


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
