"""`file_search_call` as request input: what a client replays that keeps the history itself."""

from __future__ import annotations

from engine.api import checks
from engine.api.filters import parse_attributes
from engine.ids import ItemIds

_TEXT = checks.string_up_to(10_485_760)
_NAME = checks.string_up_to(1024)
_ID = checks.string_up_to(128)
_STATUS = checks.one_of("in_progress", "searching", "completed", "incomplete", "failed")
_MOST_RESULTS = 1000
_KEYS = ("type", "id", "status", "queries", "results")
_RESULT_KEYS = ("attributes", "file_id", "filename", "score", "text")
_score = checks.number(-1e6, 1e6)


def file_search_call(entry: dict[str, object], param: str, ids: ItemIds) -> dict[str, object]:
    """Check a `file_search_call` item: a search of an earlier response."""
    checks.only_keys(entry, _KEYS, param)
    given, status, results = entry.get("id"), entry.get("status"), entry.get("results")
    minted, where = ids.mint("fs"), f"{param}.queries"
    queries = checks.array(checks.required(entry, "queries", param), where)
    return {
        "id": minted if given is None else _ID(checks.name(given, f"{param}.id"), f"{param}.id"),
        "type": entry["type"],
        "status": "completed" if status is None else _STATUS(status, f"{param}.status"),
        "queries": [_TEXT(query, f"{where}[{n}]") for n, query in enumerate(queries)],
        "results": None if results is None else _results(results, f"{param}.results"),
    }


def _results(value: object, param: str) -> list[dict[str, object]]:
    given = checks.array(value, param)
    if len(given) > _MOST_RESULTS:
        raise checks.wrong_value(f"{len(given)} results", param, f"at most {_MOST_RESULTS}")
    return [_result(one, f"{param}[{n}]") for n, one in enumerate(given)]


def _result(value: object, param: str) -> dict[str, object]:
    result = checks.mapping(value, param)
    checks.only_keys(result, _RESULT_KEYS, param)
    attributes, score, text = result.get("attributes"), result.get("score"), result.get("text")
    return {
        "attributes": {}
        if attributes is None
        else parse_attributes(attributes, f"{param}.attributes"),
        "file_id": _named(result, "file_id", param),
        "filename": _named(result, "filename", param),
        "score": 0.0 if score is None else _score(score, f"{param}.score"),
        "text": "" if text is None else _TEXT(text, f"{param}.text"),
    }


def _named(result: dict[str, object], key: str, param: str) -> object:
    given = result.get(key)
    return "" if given is None else _NAME(given, f"{param}.{key}")
