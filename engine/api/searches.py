"""Searches of a vector store as the API takes and answers them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec

from engine.api import checks
from engine.api.filters import parse_filter
from engine.api.json import encode
from engine.api.vector_stores import read_fields
from engine.ports import Filter, SearchAsked, SearchResult

MOST_QUERIES = 16
QUERY_LENGTH = 4096
"""Characters of one query."""

_KNOWN = (
    "query", "filters", "max_num_results", "ranking_options", "rewrite_query",
)  # fmt: skip
_RESULTS = checks.integer(1, 50)
_RANKER = checks.one_of("none", "auto", "default-2024-11-15")
_THRESHOLD = checks.number(0, 1)
_QUERY = checks.string_up_to(QUERY_LENGTH)


class Searching(msgspec.Struct, frozen=True, kw_only=True):
    """What a client searches for; `rewrite`: a model puts the queries into better words."""

    queries: list[str]
    limit: int
    filters: Filter | None
    ranker: str
    threshold: float
    rewrite: bool

    def of(self, store: str, queries: Sequence[str]) -> SearchAsked:
        """Return the search of a store for queries, which may have been rewritten."""
        return SearchAsked(
            stores=[store],
            queries=queries,
            limit=self.limit,
            filters=self.filters,
            threshold=self.threshold,
            ranker=self.ranker,
        )


def parse_search(body: bytes) -> Searching:
    """Check the body of `POST …/search`; raises InvalidRequest."""
    given = read_fields(body, _KNOWN)
    filters, options = given.get("filters"), _options(given.get("ranking_options"))
    limit = _RESULTS(given.get("max_num_results", 10), "max_num_results")
    assert isinstance(limit, int)
    return Searching(
        queries=_queries(given),
        limit=limit,
        filters=None if filters is None else parse_filter(filters, "filters"),
        ranker=options[0],
        threshold=options[1],
        rewrite=checks.boolean(given.get("rewrite_query", False), "rewrite_query"),
    )


def _queries(given: Mapping[str, object]) -> list[str]:
    if "query" not in given:
        raise checks.missing("query")
    value = given["query"]
    if isinstance(value, str):
        return [_query(value, "query")]
    if not isinstance(value, list):
        raise checks.wrong_type(value, "query", "a string or an array of strings")
    if not 1 <= len(value) <= MOST_QUERIES:
        raise checks.wrong_value(f"{len(value)} queries", "query", f"from 1 to {MOST_QUERIES}")
    return [_query(each, f"query[{index}]") for index, each in enumerate(value)]


def _query(value: object, param: str) -> str:
    text = str(_QUERY(value, param))
    if not text.strip():
        raise checks.wrong_value(text, param, "words to search for")
    return text


def _options(value: object) -> tuple[str, float]:
    if value is None:
        return "auto", 0.0
    options = checks.mapping(value, "ranking_options")
    checks.only_keys(options, ("ranker", "score_threshold"), "ranking_options")
    ranker, threshold = options.get("ranker"), options.get("score_threshold")
    least = 0 if threshold is None else threshold
    checked = _THRESHOLD(least, "ranking_options.score_threshold")
    assert isinstance(checked, int | float)
    named = "auto" if ranker is None else str(_RANKER(ranker, "ranking_options.ranker"))
    return named, float(checked)


def search_page(queries: Sequence[str], results: Sequence[SearchResult]) -> bytes:
    """Return the answer to a search; there is one page."""
    return encode(
        {
            "object": "vector_store.search_results.page",
            "search_query": list(queries),
            "data": [_result(result) for result in results],
            "has_more": False,
            "next_page": None,
        }
    )


def _result(result: SearchResult) -> dict[str, object]:
    return {
        "file_id": result.file_id,
        "filename": result.filename,
        "score": result.score,
        "attributes": result.attributes,
        "content": [{"type": "text", "text": result.text}],
    }
