"""Attributes of files and filters over them (rules T8, H1)."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.api.filters import matches, parse_attributes, parse_filter
from engine.errors import InvalidRequest

_LABELS: dict[str, str | float | bool] = {"lang": "de", "year": 2024.0, "open": True}


def _is(kind: str, key: str, value: object) -> bool:
    return matches(parse_filter({"type": kind, "key": key, "value": value}, "filters"), _LABELS)


@pytest.mark.parametrize(
    ("kind", "key", "value", "held"),
    [
        ("eq", "lang", "de", True),
        ("eq", "lang", "fr", False),
        ("eq", "year", 2024, True),
        ("eq", "year", "2024", False),
        ("eq", "open", True, True),
        ("eq", "open", 1, False),
        ("eq", "missing", "x", False),
        ("ne", "lang", "fr", True),
        ("ne", "lang", "de", False),
        ("ne", "missing", "x", True),
        ("ne", "open", 1, True),
        ("gt", "year", 2023.5, True),
        ("gt", "year", 2024, False),
        ("gt", "year", "2023", False),
        ("gt", "lang", "da", True),
        ("gte", "year", 2024, True),
        ("lt", "year", 2024, False),
        ("lte", "year", 2024, True),
        ("lt", "missing", 1, False),
        ("in", "lang", ["fr", "de"], True),
        ("in", "lang", [], False),
        ("in", "year", [2024, "x"], True),
        ("nin", "lang", ["fr"], True),
        ("nin", "lang", ["de"], False),
        ("nin", "missing", ["de"], True),
    ],
)
def test_each_comparison(kind: str, key: str, value: object, held: bool) -> None:
    """Rule T8: values compare with values of their own type alone."""
    assert _is(kind, key, value) is held


def test_compound_filters_nest() -> None:
    """Rule T8: `and` wants all, `or` some, at any depth that is allowed."""
    german = {"type": "eq", "key": "lang", "value": "de"}
    old = {"type": "lt", "key": "year", "value": 2000}
    either = {"type": "or", "filters": [german, old]}
    both = {"type": "and", "filters": [german, old]}
    assert matches(parse_filter({"type": "and", "filters": [either, german]}, "f"), _LABELS)
    assert not matches(parse_filter({"type": "or", "filters": [both, old]}, "f"), _LABELS)


def _nested(levels: int) -> dict[str, object]:
    inner: dict[str, object] = {"type": "eq", "key": "a", "value": 1}
    for _ in range(levels):
        inner = {"type": "and", "filters": [inner]}
    return inner


@pytest.mark.parametrize(
    ("wrong", "param"),
    [
        ("x", "f"),
        ({}, "f.type"),
        ({"type": "like", "key": "a", "value": 1}, "f.type"),
        ({"type": "eq", "value": 1}, "f.key"),
        ({"type": "eq", "key": "a"}, "f.value"),
        ({"type": "eq", "key": "a", "value": []}, "f.value"),
        ({"type": "in", "key": "a", "value": "x"}, "f.value"),
        ({"type": "in", "key": "a", "value": [{}]}, "f.value[0]"),
        ({"type": "eq", "key": "a", "value": "x" * 513}, "f.value"),
        ({"type": "eq", "key": "a", "value": "\0"}, "f.value"),
        ({"type": "eq", "key": "a", "value": 10**400}, "f.value"),
        ({"type": "eq", "key": "k" * 65, "value": 1}, "f.key"),
        ({"type": "eq", "key": "a", "value": 1, "more": 1}, "f.more"),
        ({"type": "and", "filters": []}, "f.filters"),
        ({"type": "or", "filters": [{"type": "eq", "key": "a", "value": None}]}, "f.filters[0].value"),
        ({"type": "or", "filters": [{"type": "eq", "key": "a", "value": 1}] * 257}, "f.filters[256]"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_named(wrong: object, param: str) -> None:
    """Rules H1, X5: a filter that cannot be honoured, or has no bound, is refused at its place."""
    with pytest.raises(InvalidRequest) as refused:
        parse_filter(wrong, "f")
    assert refused.value.param == param


def test_depth_is_bounded() -> None:
    """Rule X5: eight levels are taken, nine are not."""
    assert matches(parse_filter(_nested(8), "f"), {"a": 1.0})
    with pytest.raises(InvalidRequest):
        parse_filter(_nested(9), "f")


@pytest.mark.parametrize(
    "wrong",
    [{str(n): 1 for n in range(17)}, {"a": None}, {"a": []}, {"k" * 65: 1}, {"a": "x" * 513}, []],
)
def test_attributes_are_bounded(wrong: object) -> None:
    """Rules H1, X5: 16 short strings, numbers and booleans."""
    with pytest.raises(InvalidRequest):
        parse_attributes(wrong, "attributes")


_values = st.one_of(st.booleans(), st.integers(-5, 5), st.sampled_from(["", "a", "b"]))


@given(st.dictionaries(st.sampled_from("xy"), _values), st.sampled_from("xyz"), _values)
def test_opposites(labels: dict[str, object], key: str, value: object) -> None:
    """Rule T8: `ne` and `nin` hold where `eq` and `in` do not, whatever the file has."""
    held = parse_attributes(labels, "attributes")
    for one, other, wanted in (("eq", "ne", value), ("in", "nin", [value])):
        first = parse_filter({"type": one, "key": key, "value": wanted}, "f")
        second = parse_filter({"type": other, "key": key, "value": wanted}, "f")
        assert matches(first, held) is not matches(second, held)
