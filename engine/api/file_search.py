"""`{"type": "file_search"}`: the declaration, and what the model asks with (rule T8)."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from engine.api import checks
from engine.api.filters import parse_filter
from engine.api.json import encode
from engine.ports.search import Filter, SearchAsked
from engine.ports.tools import ToolDefinition

FILE_SEARCH = "file_search"
CALL = "file_search_call"
RESULTS = "file_search_call.results"
"""What `include` names them by."""

MOST_STORES = 16
MOST_QUERIES = 8
_QUERY_LENGTH = 4096
_KEYS = ("type", "vector_store_ids", "filters", "max_num_results", "ranking_options")
_RANKING_KEYS = ("ranker", "score_threshold", "hybrid_search")
_WEIGHTS = ("embedding_weight", "text_weight")
_store_id = checks.string_up_to(256)
_ranker = checks.one_of("auto", "default-2024-11-15")
_results = checks.integer(1, 50)
_threshold = checks.number(0, 1)
_weight = checks.number(0, 1_000_000)

DEFINITION = ToolDefinition(
    name=FILE_SEARCH,
    description=(
        "Searches the files that the user has provided and returns the passages that fit best. Use it "
        "whenever the answer may be in these files. Each passage has a number in brackets, such as 【3】. "
        "Behind every statement that you take from a passage, write its number in the same brackets."
    ),
    parameters=encode(
        {
            "type": "object",
            "properties": {
                "queries": {
                    "type": "array",
                    "items": {"type": "string"},
                    "description": (
                        "What to look for: one to three short questions or lists of key words."
                    ),
                }
            },
            "required": ["queries"],
        }
    ),
    read_only=True,
)


class FileSearchTool(msgspec.Struct, frozen=True, kw_only=True):
    """A declaration, checked. `declared` is what is shown of it: as it came, without nulls."""

    stores: tuple[str, ...]
    declared: Mapping[str, object]
    filters: Filter | None = None
    limit: int | None = None
    ranker: str = "auto"
    threshold: float = 0.0
    weights: tuple[float, float] | None = None

    @property
    def server_label(self) -> str:
        """What tells it from other owned tools; `tool_choice` names it so, too."""
        return FILE_SEARCH

    def shown(self) -> dict[str, object]:
        """Return the echo in the response object."""
        return dict(self.declared)

    def asked(self, queries: tuple[str, ...], limit: int) -> SearchAsked:
        """Return the search for these; `limit` holds where the declaration has none."""
        return SearchAsked(
            stores=self.stores,
            queries=queries,
            limit=limit if self.limit is None else self.limit,
            filters=self.filters,
            threshold=self.threshold,
            ranker=self.ranker,
            weights=self.weights,
        )


def parse_file_search(tool: Mapping[str, object], param: str) -> FileSearchTool:
    """Check a declaration; raises InvalidRequest."""
    checks.only_keys(tool, _KEYS, param)
    stores = _stores(checks.required(tool, "vector_store_ids", param), f"{param}.vector_store_ids")
    filters, limit = tool.get("filters"), tool.get("max_num_results")
    where = f"{param}.ranking_options"
    ranking = {} if tool.get("ranking_options") is None else tool["ranking_options"]
    options = checks.mapping(ranking, where)
    checks.only_keys(options, _RANKING_KEYS, where)
    ranker, threshold = options.get("ranker"), options.get("score_threshold")
    if limit is not None:
        _results(limit, f"{param}.max_num_results")
    return FileSearchTool(
        stores=stores,
        declared={key: value for key, value in tool.items() if value is not None},
        filters=None if filters is None else parse_filter(filters, f"{param}.filters"),
        limit=limit if isinstance(limit, int) else None,
        ranker="auto" if ranker is None else str(_ranker(ranker, f"{where}.ranker")),
        threshold=0.0
        if threshold is None
        else _number(_threshold, threshold, where, "score_threshold"),
        weights=_hybrid(options.get("hybrid_search"), f"{where}.hybrid_search"),
    )


def _stores(value: object, param: str) -> tuple[str, ...]:
    given = checks.array(value, param)
    if not 1 <= len(given) <= MOST_STORES:
        raise checks.wrong_value(
            f"{len(given)} stores", param, f"at least one and at most {MOST_STORES}"
        )
    names = [
        str(_store_id(checks.name(one, f"{param}[{index}]"), f"{param}[{index}]"))
        for index, one in enumerate(given)
    ]
    return tuple(dict.fromkeys(names))


def _hybrid(value: object, param: str) -> tuple[float, float] | None:
    if value is None:
        return None
    options = checks.mapping(value, param)
    checks.only_keys(options, _WEIGHTS, param)
    vectors, words = (
        _number(_weight, checks.required(options, name, param), param, name) for name in _WEIGHTS
    )
    if not vectors and not words:
        raise checks.wrong_value("0 and 0", param, "a weight above 0")
    return vectors, words


def _number(check: checks.Check, value: object, param: str, name: str) -> float:
    checked = check(value, f"{param}.{name}")
    assert isinstance(checked, int | float)
    return float(checked)


class _Arguments(msgspec.Struct, frozen=True):
    queries: list[str] | str | None = None
    query: str | None = None


_decode = msgspec.json.Decoder(_Arguments).decode


def read_queries(arguments: str) -> tuple[str, ...]:
    """Return what the model wants to know; raises ValueError that tells it what is wrong.

    A single query is taken as small models write it, too: as a string, or under `query`.
    """
    try:
        read = _decode(arguments)
    except (msgspec.DecodeError, RecursionError) as exc:
        raise ValueError(f"The arguments are not what file_search takes: {exc}.") from exc
    given = read.queries if read.queries is not None else read.query
    several = [given] if isinstance(given, str) else given or []
    queries = tuple(dict.fromkeys(query.strip() for query in several if query.strip()))
    if not queries:
        raise ValueError("'queries' must be an array of at least one string that is not empty.")
    if len(queries) > MOST_QUERIES or max(map(len, queries)) > _QUERY_LENGTH:
        raise ValueError(
            f"'queries' may have {MOST_QUERIES} strings of {_QUERY_LENGTH} characters at most."
        )
    return queries
