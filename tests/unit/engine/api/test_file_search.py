"""The declaration of `file_search`, and what the model asks with (T8, H1)."""

from __future__ import annotations

import json
from typing import Any

import pytest

from engine.api.file_search import FileSearchTool, parse_file_search, read_queries
from engine.api.ownership import ToolPolicy
from engine.api.tools import parse_tools
from engine.errors import InvalidRequest
from engine.ports.search import Comparison

TOOL: dict[str, Any] = {"type": "file_search", "vector_store_ids": ["vs_1"]}
POLICY = ToolPolicy(file_search=True)


def hybrid(**weights: Any) -> dict[str, Any]:
    return {"hybrid_search": weights}


def test_a_plain_declaration() -> None:
    """T8: nulls are absent, a store that is named twice is one."""
    tool = parse_file_search({**TOOL, "vector_store_ids": ["a", "b", "a"], "filters": None}, "t")
    assert (tool.stores, tool.filters, tool.limit) == (("a", "b"), None, None)
    assert (tool.ranker, tool.threshold, tool.weights) == ("auto", 0.0, None)
    assert tool.shown() == {**TOOL, "vector_store_ids": ["a", "b", "a"]}
    asked = tool.asked(("q",), 7)
    assert (asked.limit, asked.queries, asked.stores) == (7, ("q",), ("a", "b"))


def test_a_full_declaration() -> None:
    """T8."""
    full = {
        **TOOL,
        "filters": {"type": "eq", "key": "k", "value": "v"},
        "max_num_results": 50,
        "ranking_options": {
            "ranker": "auto",
            "score_threshold": 1,
            "hybrid_search": {"embedding_weight": 0, "text_weight": 0.5},
        },
    }
    tool = parse_file_search(full, "t")
    assert tool.filters == Comparison("eq", "k", "v")
    assert (tool.threshold, tool.weights, tool.asked((), 1).limit) == (1.0, (0.0, 0.5), 50)
    assert tool.shown() == full


@pytest.mark.parametrize(
    ("changed", "param", "code"),
    [
        ({"vector_store_ids": None}, "vector_store_ids", "missing_required_parameter"),
        ({"vector_store_ids": "vs_1"}, "vector_store_ids", "invalid_type"),
        ({"vector_store_ids": []}, "vector_store_ids", "invalid_value"),
        ({"vector_store_ids": ["a"] * 17}, "vector_store_ids", "invalid_value"),
        ({"vector_store_ids": ["a", 1]}, "vector_store_ids[1]", "invalid_type"),
        ({"vector_store_ids": [""]}, "vector_store_ids[0]", "invalid_value"),
        ({"vector_store_ids": ["a" * 257]}, "vector_store_ids[0]", "invalid_value"),
        ({"max_num_results": 0}, "max_num_results", "invalid_value"),
        ({"max_num_results": 51}, "max_num_results", "invalid_value"),
        ({"max_num_results": True}, "max_num_results", "invalid_type"),
        ({"filters": {"type": "eq", "key": "k"}}, "filters.value", "missing_required_parameter"),
        ({"filters": {"type": "x"}}, "filters.type", "invalid_value"),
        ({"x": 1}, "x", "unknown_parameter"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_refused_at_its_place(
    changed: dict[str, Any], param: str, code: str
) -> None:
    """H1: exact `param` and `code`."""
    with pytest.raises(InvalidRequest) as caught:
        parse_file_search({**TOOL, **changed}, "tools[0]")
    assert (caught.value.param, caught.value.code) == (f"tools[0].{param}", code)


@pytest.mark.parametrize(
    ("options", "param", "code"),
    [
        ([], "", "invalid_type"),
        ({"x": 1}, ".x", "unknown_parameter"),
        ({"ranker": "none"}, ".ranker", "invalid_value"),
        ({"score_threshold": 1.1}, ".score_threshold", "invalid_value"),
        (hybrid(text_weight=1), ".hybrid_search.embedding_weight", "missing_required_parameter"),
        (hybrid(text_weight=0, embedding_weight=0), ".hybrid_search", "invalid_value"),
        (hybrid(text_weight=-1, embedding_weight=0), ".hybrid_search.text_weight", "invalid_value"),
        (hybrid(text_weight=1, embedding_weight=0, x=1), ".hybrid_search.x", "unknown_parameter"),
    ],
)
def test_ranking_options_are_checked(options: Any, param: str, code: str) -> None:
    """H1: exact `param` and `code`."""
    with pytest.raises(InvalidRequest) as caught:
        parse_file_search({**TOOL, "ranking_options": options}, "tools[0]")
    assert caught.value.param == f"tools[0].ranking_options{param}"
    assert caught.value.code == code


def test_it_is_declared_once() -> None:
    """T5: calls of two could not be told apart."""
    with pytest.raises(InvalidRequest):
        parse_tools([TOOL, TOOL], "tools", most=9, policy=POLICY)
    [tool] = parse_tools([TOOL], "tools", most=9, policy=POLICY)
    assert isinstance(tool, FileSearchTool)


@pytest.mark.parametrize(
    ("arguments", "queries"),
    [
        ({"queries": ["a", " b ", "a"]}, ("a", "b")),
        ({"queries": "a"}, ("a",)),
        ({"query": "a"}, ("a",)),
        ({"queries": ["a"], "query": "b", "more": 1}, ("a",)),
    ],
)
def test_what_the_model_asks_with(arguments: dict[str, Any], queries: tuple[str, ...]) -> None:
    """T8: small models do not keep to a schema."""
    assert read_queries(json.dumps(arguments)) == queries


@pytest.mark.parametrize(
    "arguments",
    ["", "x", "[]", "{}", '{"queries":[]}', '{"queries":[""]}', '{"query":1}', "[" * 9999],
)
def test_arguments_that_ask_nothing(arguments: str) -> None:
    """T7: the model is told."""
    with pytest.raises(ValueError, match=r"queries|file_search"):
        read_queries(arguments)


def test_a_query_is_bounded() -> None:
    """X5."""
    with pytest.raises(ValueError, match="4096"):
        read_queries(json.dumps({"query": "a" * 4097}))
