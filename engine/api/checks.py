"""Checks of single request values: a decoded JSON value and its path in, the value out.

Each raises InvalidRequest with `param` set to the path, a `code` of the API's, and a message that says
what would have been right (rule H1).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Mapping

from engine.api.json import type_name
from engine.errors import InvalidRequest

Check = Callable[[object, str], object]

_MOST_LEVELS = 200


def wrong_type(value: object, param: str, expected: str) -> InvalidRequest:
    """Return the error for a value of the wrong JSON type."""
    return InvalidRequest(
        f"Invalid type for '{param}': expected {expected}, but got {type_name(value)} instead.",
        param=param,
        code="invalid_type",
    )


def wrong_value(value: object, param: str, expected: str) -> InvalidRequest:
    """Return the error for a value of the right type that is not allowed."""
    shown = str(value)
    shown = shown if len(shown) <= 80 else shown[:77] + "..."
    return InvalidRequest(
        f"Invalid value for '{param}': '{shown}'. Expected {expected}.",
        param=param,
        code="invalid_value",
    )


def unsupported(param: str, why: str) -> InvalidRequest:
    """Return the error for something of the API that this gateway does not honour."""
    return InvalidRequest(
        f"'{param}' is not supported: {why}", param=param, code="unsupported_value"
    )


def missing(param: str) -> InvalidRequest:
    """Return the error for a required value that is not there."""
    return InvalidRequest(
        f"Missing required parameter: '{param}'.", param=param, code="missing_required_parameter"
    )


def unknown(param: str, known: Collection[str] = ()) -> InvalidRequest:
    """Return the error for a key that the API does not have at this place."""
    hint = f" Known here: {', '.join(sorted(known))}." if known else ""
    return InvalidRequest(
        f"Unknown parameter: '{param}'.{hint}", param=param, code="unknown_parameter"
    )


def string(value: object, param: str) -> str:
    """Any string."""
    if not isinstance(value, str):
        raise wrong_type(value, param, "a string")
    return value


def name(value: object, param: str) -> str:
    """A non-empty string."""
    text = string(value, param)
    if not text:
        raise wrong_value(value, param, "a string that is not empty")
    return text


def string_up_to(length: int) -> Check:
    """Return a check for a string of at most `length` characters."""

    def check(value: object, param: str) -> str:
        text = string(value, param)
        if len(text) > length:
            raise wrong_value(text, param, f"at most {length} characters, got {len(text)}")
        return text

    return check


def matching(pattern: str) -> Check:
    """Return a check for a string that matches the whole pattern."""
    compiled = re.compile(pattern)

    def check(value: object, param: str) -> str:
        text = string(value, param)
        if not compiled.fullmatch(text):
            raise wrong_value(text, param, f"a string that matches {pattern}")
        return text

    return check


def boolean(value: object, param: str) -> bool:
    """True or false."""
    if not isinstance(value, bool):
        raise wrong_type(value, param, "a boolean")
    return value


def integer(low: int, high: int | None = None) -> Check:
    """Return a check for an integer within bounds (both inclusive)."""

    def check(value: object, param: str) -> int:
        if isinstance(value, bool) or not isinstance(value, int):
            raise wrong_type(value, param, "an integer")
        if value < low or (high is not None and value > high):
            bounds = f"at least {low}" if high is None else f"from {low} to {high}"
            raise wrong_value(value, param, f"an integer {bounds}")
        return value

    return check


def number(low: float, high: float) -> Check:
    """Return a check for a number within bounds (both inclusive)."""

    def check(value: object, param: str) -> float:
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise wrong_type(value, param, "a number")
        if not low <= value <= high:
            raise wrong_value(value, param, f"a number from {low} to {high}")
        return value

    return check


def one_of(*allowed: str) -> Check:
    """Return a check for one of the given strings."""

    def check(value: object, param: str) -> str:
        text = string(value, param)
        if text not in allowed:
            raise wrong_value(text, param, "one of " + ", ".join(f"'{a}'" for a in allowed))
        return text

    return check


def mapping(value: object, param: str) -> dict[str, object]:
    """A JSON object."""
    if not isinstance(value, dict):
        raise wrong_type(value, param, "an object")
    return value


def array(value: object, param: str) -> list[object]:
    """A JSON array."""
    if not isinstance(value, list):
        raise wrong_type(value, param, "an array")
    return value


def anything(value: object, param: str) -> object:
    """Whatever it is, the backend judges it; at most 200 levels of arrays and objects.

    It is written and read again where Python's stack is deeper than here, and where what cannot be
    followed would be a failure of the gateway's.
    """
    level = [value] if isinstance(value, (dict, list)) else []
    for _ in range(_MOST_LEVELS):
        if not level:
            return value
        level = [one for outer in level for one in _inner(outer) if isinstance(one, (dict, list))]
    if level:
        raise InvalidRequest(
            f"'{param}' is nested too deeply: at most {_MOST_LEVELS} levels.",
            param=param,
            code="invalid_json",
        )
    return value


def any_object(value: object, param: str) -> dict[str, object]:
    """A JSON object of anything, as `anything` has it."""
    found = mapping(value, param)
    anything(found, param)
    return found


def _inner(value: dict[str, object] | list[object]) -> Iterable[object]:
    return value.values() if isinstance(value, dict) else value


def required(source: Mapping[str, object], key: str, param: str) -> object:
    """Return the value of a key that must be there and must not be null."""
    value = source.get(key)
    if value is None:
        raise missing(f"{param}.{key}")
    return value


def only_keys(source: Mapping[str, object], allowed: Collection[str], param: str) -> None:
    """Refuse keys that are not allowed; null means absent (rule H1)."""
    for key, value in source.items():
        if key not in allowed and value is not None:
            raise unknown(f"{param}.{key}", allowed)


def metadata(value: object, param: str) -> dict[str, object]:
    """At most 16 pairs of strings; keys up to 64 and values up to 512 characters."""
    pairs = mapping(value, param)
    if len(pairs) > 16:
        raise wrong_value(f"{len(pairs)} pairs", param, "at most 16")
    for key, text in pairs.items():
        if len(key) > 64:
            raise wrong_value(key, param, "keys of at most 64 characters")
        string_up_to(512)(text, f"{param}.{key}")
    return pairs
