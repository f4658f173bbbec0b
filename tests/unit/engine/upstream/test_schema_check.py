"""`engine.upstream.schema_check`: a client's schema cannot hold up the worker (rule X5)."""

from __future__ import annotations

import json
from typing import Any

import pytest

from engine.upstream.schema_check import mismatch

DRAFT = "https://json-schema.org/draft/2020-12/schema"
DOUBLING = {
    "$ref": "#/$defs/a",
    "$defs": {
        "a": {
            "anyOf": [
                {"type": "array", "items": {"$ref": "#/$defs/a"}},
                {"type": "array", "minItems": 1, "items": {"$ref": "#/$defs/a"}},
            ]
        }
    },
}
ROW = {
    "type": "object",
    "properties": {name: {"type": ["string", "null"]} for name in "abcde"},
    "required": list("abcde"),
    "additionalProperties": False,
}


@pytest.mark.parametrize("depth", [12, 200])
def test_work_that_doubles_with_each_level_ends(depth: int) -> None:
    """X5: and a little of it is judged."""
    assert mismatch(json.loads("[" * depth + "1" + "]" * depth), DOUBLING) is None
    assert "is not valid under any" in (mismatch([[1]], DOUBLING) or "")


def test_a_value_that_is_nested_deeply_is_not_judged() -> None:
    """X5: it ends before the stack does, and not in a panic of the library."""
    schema = {"type": "array", "items": {"$ref": "#"}}
    assert mismatch(json.loads("[" * 900 + "1" + "]" * 900), schema) is None
    told = mismatch(json.loads("[" * 30 + "1" + "]" * 30), schema) or ""
    assert told.endswith("1 is not of type 'array'")


LONG = list(range(20_000))


@pytest.mark.parametrize(
    ("schema", "value"),
    [
        # What is told of a value is as long as that.
        ({"allOf": [{"type": "string"}] * 100}, LONG),
        ({"anyOf": [{"$ref": "#/$defs/a"}] * 500, "$defs": {"a": {"enum": LONG[:1000]}}}, -1),
        ({"enum": LONG}, -1),
        ({"allOf": [{"items": {}}] * 20, "type": "string"}, LONG),
        ({"allOf": [{"uniqueItems": True}] * 100, "type": "string"}, LONG),
        ({"anyOf": [False] * 100}, LONG),
        ({"not": {"not": False}}, 1),
    ],
)
def test_long_values_and_long_schemas_take_many_steps(schema: Any, value: object) -> None:
    """X5: one keyword can look at all of either."""
    assert mismatch(value, schema) is None


@pytest.mark.parametrize(
    "schema",
    [
        {"patternProperties": {"^b": {}}, "additionalProperties": False},
        {"patternProperties": {"^b": {}}, "unevaluatedProperties": False},
        {"properties": {"a": {"$schema": DRAFT, "pattern": "^b"}}},
        {"$schema": DRAFT, "pattern": "^b", "properties": {"a": {"$ref": "#"}}},
        {"properties": {"a": {"$id": "other", "type": "integer"}}},
        {"properties": {"a": {"$ref": "#b"}}, "$defs": {"b": {"$anchor": "b", "type": "integer"}}},
        {"properties": {"a": {"$ref": DRAFT}}},
        {"type": "whatever"},
        {"properties": ["a"]},
    ],
)
def test_what_cannot_be_counted_is_not_judged(schema: Any) -> None:
    """X5: no pattern is matched by a way around, and nothing is looked for in the whole schema."""
    assert mismatch({"a": "a"}, schema) is None


def test_a_schema_that_names_its_draft_is_judged() -> None:
    """H1: as generators of schemas do."""
    schema = {"$schema": DRAFT, "$id": "https://example.com/thing", **ROW}
    assert mismatch({}, schema) == "at $, 'a' is a required property"


def test_a_long_answer_is_judged() -> None:
    """H1: five hundred rows are no attack."""
    schema = {"type": "array", "items": ROW}
    rows: list[Any] = [dict.fromkeys("abcde", "x" * 20) for _ in range(500)]
    assert mismatch(rows, schema) is None
    rows[-1]["e"] = 1
    assert mismatch(rows, schema) == "at $[499].e, 1 is not of type 'string', 'null'"


@pytest.mark.parametrize(
    ("value", "same"),
    [([1, "1", True, [1], {"a": 1}], False), ([{"a": 1, "b": 2}, 3, {"b": 2, "a": 1}], True)],
)
def test_elements_that_are_the_same_are_found(value: list[object], same: bool) -> None:
    """H1: by what they are in JSON."""
    assert (mismatch(value, {"uniqueItems": True}) is not None) is same
