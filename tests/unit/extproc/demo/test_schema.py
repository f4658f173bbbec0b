"""Instances of schemas."""

from __future__ import annotations

from typing import Any

import pytest

from extproc.demo.schema import instance

CASES: list[tuple[dict[str, Any], Any]] = [
    ({"const": 5}, 5),
    ({"enum": ["a", "b"]}, "a"),
    ({"type": "boolean"}, True),
    ({"type": ["null", "string"]}, "example"),
    ({"type": "null"}, None),
    ({"type": "string", "format": "date"}, "2026-01-31"),
    ({"type": "string", "minLength": 9}, "example.."),
    ({"type": "string", "maxLength": 2}, "ex"),
    ({"type": "integer", "minimum": 10, "maximum": 10}, 10),
    ({"type": "integer", "exclusiveMinimum": 4, "maximum": 5}, 5),
    ({"type": "integer", "minimum": 7, "multipleOf": 5}, 10),
    ({"type": "number"}, 1.0),
    ({"type": "array", "items": {"type": "integer"}, "minItems": 2}, [1, 1]),
    ({"anyOf": [{"type": "null"}, {"type": "integer"}]}, 1),
    ({"properties": {"city": {"type": "string"}}}, {"city": "city"}),
    ({"$ref": "#/$defs/n", "$defs": {"n": {"type": "integer"}}}, 1),
    (
        {"allOf": [{"properties": {"a": {"const": 1}}}, {"properties": {"b": {"const": 2}}}]},
        {"a": 1, "b": 2},
    ),
    ({}, "example"),
]


@pytest.mark.parametrize(("schema", "expected"), CASES, ids=str)
def test_an_instance_fits_its_schema(schema: dict[str, Any], expected: Any) -> None:
    """One case per keyword that tools use."""
    assert instance(schema) == expected


def test_a_recursive_schema_ends() -> None:
    """A tree of trees is followed some levels down and then left alone."""
    tree = {"type": "array", "items": {"$ref": "#/$defs/node"}}
    node = {"type": "object", "properties": {"children": tree}, "required": ["children"]}
    made = instance({"$ref": "#/$defs/node", "$defs": {"node": node}})
    assert made["children"]


def test_words_fill_the_properties_of_their_names() -> None:
    """A search query is the user's own words."""
    schema = {"type": "object", "properties": {"query": {"type": "string"}}}
    assert instance(schema, {"query": "whales"}) == {"query": "whales"}
    lists = {
        "type": "object",
        "properties": {"queries": {"type": "array", "items": {"type": "string"}}},
    }
    assert instance(lists, {"queries": "whales"}) == {"queries": ["whales"]}
