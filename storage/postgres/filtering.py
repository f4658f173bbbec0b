"""Filters over attributes as jsonpaths: a parameter like any other, whose values are parameters of its own.

Each comparison is within `exists`, which is false where jsonpath would not know: for an attribute that is not
there, and for one of another type. So `!` is its opposite there too, as `engine.api.filters.matches` has it.
"""

from __future__ import annotations

import json

import msgspec

from engine.ports import AttributeValue, Comparison, Compound, Filter

_OPERATORS = {"eq": "==", "ne": "==", "gt": ">", "gte": ">=", "lt": "<", "lte": "<="}
_NEGATED = ("ne", "nin")

_Value = AttributeValue | tuple[AttributeValue, ...]


def compiled(wanted: Filter) -> tuple[str, bytes]:
    """Return a jsonpath that is true or false of an object of attributes, and its variables as JSON."""
    values: list[_Value] = []
    path = _path(wanted, values)
    return path, msgspec.json.encode({f"v{place}": value for place, value in enumerate(values)})


def _path(wanted: Filter, values: list[_Value]) -> str:
    if isinstance(wanted, Compound):
        operator = " && " if wanted.type == "and" else " || "
        return "(" + operator.join(_path(one, values) for one in wanted.filters) + ")"
    return _compared(wanted, values)


def _compared(wanted: Comparison, values: list[_Value]) -> str:
    # The strings of jsonpath are those of JSON: quotes, backslashes and control characters are escaped.
    key = json.dumps(wanted.key, ensure_ascii=False)
    several = isinstance(wanted.value, tuple)
    variable = f"$v{len(values)}[*]" if several else f"$v{len(values)}"
    values.append(wanted.value)
    operator = "==" if several else _OPERATORS[wanted.type]
    there = f"exists($.{key} ? (@ {operator} {variable}))"
    return f"!{there}" if wanted.type in _NEGATED else there
