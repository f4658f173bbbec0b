"""Attributes of files, and filters over them: of `file_search` and of the search of vector stores (rule T8).

A comparison with an attribute that a file does not have, or that is of another type, is false; `ne` and `nin`
are the opposites of `eq` and `in`, so they hold there. Booleans are not numbers. Strings are compared by
code points.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Mapping

from engine.api import checks
from engine.ports.search import Attributes, AttributeValue, Comparison, Compound, Filter

_MOST_ATTRIBUTES = 16
_KEY_LENGTH = 64
_VALUE_LENGTH = 512
_MOST_COMPARISONS = 256
_DEEPEST = 8

_TYPES = ("eq", "ne", "gt", "gte", "lt", "lte", "in", "nin", "and", "or")
_type = checks.one_of(*_TYPES)
_key = checks.string_up_to(_KEY_LENGTH)
_value_text = checks.string_up_to(_VALUE_LENGTH)


def parse_attributes(value: object, param: str) -> dict[str, AttributeValue]:
    """Check attributes: at most 16 of strings, numbers and booleans; raises InvalidRequest."""
    pairs = checks.mapping(value, param)
    if len(pairs) > _MOST_ATTRIBUTES:
        raise checks.wrong_value(f"{len(pairs)} attributes", param, f"at most {_MOST_ATTRIBUTES}")
    return {
        _storable(str(_key(key, param)), param): _single(single, f"{param}.{key}")
        for key, single in pairs.items()
    }


def parse_filter(value: object, param: str) -> Filter:
    """Check a filter; raises InvalidRequest that names the place of what is wrong."""
    left = [_MOST_COMPARISONS]
    return _parse(value, param, left, _DEEPEST)


def matches(wanted: Filter, attributes: Attributes) -> bool:
    """True if a file with these attributes is wanted."""
    if isinstance(wanted, Compound):
        every = all if wanted.type == "and" else any
        return every(matches(one, attributes) for one in wanted.filters)
    return _compare(wanted, attributes.get(wanted.key))


def _parse(value: object, param: str, left: list[int], depth: int) -> Filter:
    source = checks.mapping(value, param)
    kind = str(_type(checks.required(source, "type", param), f"{param}.type"))
    if kind not in ("and", "or"):
        left[0] -= 1
        if left[0] < 0:
            raise checks.wrong_value("…", param, f"at most {_MOST_COMPARISONS} comparisons")
        return _comparison(source, kind, param)
    checks.only_keys(source, ("type", "filters"), param)
    inner = checks.array(checks.required(source, "filters", param), f"{param}.filters")
    if not inner or not depth:
        expected = "at least one filter" if depth else f"at most {_DEEPEST} levels"
        raise checks.wrong_value("[]" if depth else "…", f"{param}.filters", expected)
    places = ((one, f"{param}.filters[{index}]") for index, one in enumerate(inner))
    return Compound(kind, tuple(_parse(one, place, left, depth - 1) for one, place in places))


def _comparison(source: Mapping[str, object], kind: str, param: str) -> Comparison:
    checks.only_keys(source, ("type", "key", "value"), param)
    key = _storable(str(_key(checks.required(source, "key", param), f"{param}.key")), param)
    value, place = checks.required(source, "value", param), f"{param}.value"
    if kind not in ("in", "nin"):
        return Comparison(kind, key, _single(value, place))
    several = checks.array(value, place)
    if len(several) > _MOST_COMPARISONS:
        raise checks.wrong_value(f"{len(several)} values", place, f"at most {_MOST_COMPARISONS}")
    return Comparison(
        kind, key, tuple(_single(one, f"{place}[{index}]") for index, one in enumerate(several))
    )


def _single(value: object, param: str) -> AttributeValue:
    if isinstance(value, bool):
        return value
    if isinstance(value, int | float):
        try:
            number = float(value)
        except OverflowError:
            number = math.inf
        if not math.isfinite(number):
            raise checks.wrong_value(value, param, "a number of double precision")
        return number
    if not isinstance(value, str):
        raise checks.wrong_type(value, param, "a string, a number or a boolean")
    return _storable(str(_value_text(value, param)), param)


def _storable(text: str, param: str) -> str:
    """Return a text that every store can compare: no NUL, no half of a surrogate pair."""
    if "\0" in text or any("\ud800" <= char <= "\udfff" for char in text):
        raise checks.wrong_value("…", param, "text without NUL and unpaired surrogates")
    return text


def _compare(wanted: Comparison, held: AttributeValue | None) -> bool:
    if isinstance(wanted.value, tuple):
        among = any(_equal(held, one) for one in wanted.value)
        return among is (wanted.type == "in")
    if wanted.type in ("eq", "ne"):
        return _equal(held, wanted.value) is (wanted.type == "eq")
    if held is None or _kind(held) is not _kind(wanted.value):
        return False
    return _ORDERED[wanted.type](held, wanted.value)


def _equal(held: AttributeValue | None, value: AttributeValue) -> bool:
    return held is not None and _kind(held) is _kind(value) and held == value


def _kind(value: AttributeValue) -> type:
    return float if type(value) is int else type(value)


_ORDERED: Mapping[str, Callable[[AttributeValue, AttributeValue], bool]] = {
    "gt": operator.gt,
    "gte": operator.ge,
    "lt": operator.lt,
    "lte": operator.le,
}
