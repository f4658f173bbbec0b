"""What is wrong with a value by a JSON schema, found in a bounded number of steps. Pure.

The schema is the client's and the value the model's: two alternatives that refer to themselves double the
work with each level of the value, and whoever looks at them holds up everybody else. So the steps are
counted, and what takes too many is not judged. Neither is what cannot be counted:

- patterns, and keywords that ask which properties a pattern has matched: one that backtracks never ends;
- parts that name a meta-schema, which are looked at by keywords that do not count, and references that
  are looked for in the whole schema, each time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import msgspec
from jsonschema import Draft202012Validator
from jsonschema.exceptions import SchemaError, UnknownType, ValidationError, best_match
from jsonschema.validators import extend
from referencing import Registry
from referencing.exceptions import Unresolvable

# A step takes one to two microseconds, and a keyword that is looked at some of them.
_MOST_STEPS = 100_000
_LOOK = 4
# Keywords within keywords: where the stack ends, the library's maps in Rust panic, which no `except` is for.
_MOST_NESTED = 120
# Steps that the text of a schema may be worth; a keyword is looked at whole.
_MOST_SCHEMA = 20_000
# Characters that are told or compared in the time of a step.
_CHARACTERS = 64

_IGNORED = ("pattern", "patternProperties", "unevaluatedProperties", "unevaluatedItems")
# Their values are data, and looked at whole.
_WHOLE = ("enum", "const", "type", "required", "dependentRequired", "$ref", "$dynamicRef")
# They look at each element of what they are asked about.
_EACH = ("items", "contains", "propertyNames", "additionalProperties")
_REFERENCES = ("$ref", "$dynamicRef")
_NAMES = ("$schema", "$id", "$anchor", "$dynamicAnchor")
_ALTERNATIVES = ("anyOf", "oneOf", "not", "if", "contains")

_Keyword = Callable[[Any, Any, Any, Any], Iterable[ValidationError] | None]


class _TooMuch(Exception):
    """It takes more steps than there are."""


class _Steps:
    """Those that are left of `most`, and how far inside of the schema they are taken."""

    def __init__(self, most: int) -> None:
        self._left = most
        self._depth = 0

    def take(self, count: int) -> None:
        """Take some; raises _TooMuch."""
        self._left -= count
        if self._left < 0:
            raise _TooMuch

    @contextmanager
    def inside(self) -> Iterator[None]:
        """Take steps one level further inside; raises _TooMuch."""
        if self._depth == _MOST_NESTED:
            raise _TooMuch
        self._depth += 1
        try:
            yield
        finally:
            self._depth -= 1


_STEPS: ContextVar[_Steps] = ContextVar("steps")


def mismatch(value: object, schema: object) -> str | None:
    """Return what is wrong with a JSON value; None where it is as wanted, or cannot be judged."""
    if not isinstance(schema, dict):
        return None
    # Of the whole schema, neither says anything about the value.
    schema = {name: part for name, part in schema.items() if name not in ("$schema", "$id")}
    before = _STEPS.set(_Steps(_MOST_STEPS))
    try:
        if not _is_countable(schema):
            return None
        errors = _Checker(schema, registry=Registry()).iter_errors(value)
        found = best_match(errors, key=_relevance)
    except (_TooMuch, RecursionError, SchemaError, Unresolvable, UnknownType):
        return None
    except (TypeError, ValueError, AttributeError, LookupError, ArithmeticError):
        # Not a schema; the server took it.
        return None
    finally:
        _STEPS.reset(before)
    return None if found is None else f"at {found.json_path}, {found.message[:200]}"


def _relevance(error: ValidationError) -> tuple[int, bool]:
    """What is wrong further up says more, and the alternatives say less than what is wrong with one."""
    return -len(error.path), error.validator not in ("anyOf", "oneOf")


def _is_countable(schema: object) -> bool:
    """True if all that looking at it takes is counted; raises _TooMuch for one that is too large."""
    steps = _Steps(_MOST_SCHEMA)
    return all(_is_plain(part) for part in _parts(schema, steps) if isinstance(part, dict))


def _is_plain(part: dict[str, object]) -> bool:
    if any(isinstance(part.get(name), str) for name in _NAMES):
        return False
    for name in _ALTERNATIVES:
        # Each `false` makes a text of the whole value, and of these none is told.
        value = part.get(name)
        if value is False or (isinstance(value, list) and any(one is False for one in value)):
            return False
    references = (part.get(name, "#") for name in _REFERENCES)
    return all(not isinstance(one, str) or f"{one}/".startswith("#/") for one in references)


def _parts(value: object, steps: _Steps) -> Iterator[object]:
    """Yield a JSON value and all that is in it, with a step for each and some for long texts."""
    waiting = [value]
    while waiting:
        part = waiting.pop()
        steps.take(1 + (len(part) // _CHARACTERS if isinstance(part, str) else 0))
        yield part
        if isinstance(part, dict):
            waiting += part.keys()
            waiting += part.values()
        elif isinstance(part, list):
            waiting += part


def _length(value: object) -> int:
    return len(value) if isinstance(value, dict | list) else 0


def _counted(name: str, keyword: _Keyword) -> _Keyword:
    """Return a keyword that takes steps for what it looks at and for what it tells."""

    def look(validator: Any, value: Any, instance: Any, schema: Any) -> Iterator[ValidationError]:
        steps = _STEPS.get()
        steps.take(_LOOK + _length(value) + (_length(instance) if name in _EACH else 0))
        if name in _WHOLE:
            for _ in _parts(value, steps):
                pass
        with steps.inside():
            for error in keyword(validator, value, instance, schema) or ():
                steps.take(1 + len(error.message) // _CHARACTERS)
                yield error

    return look


def _additional(
    validator: Any, value: Any, instance: Any, schema: Any
) -> Iterable[ValidationError] | None:
    if "patternProperties" in schema:
        return None
    keyword: _Keyword = Draft202012Validator.VALIDATORS["additionalProperties"]
    return keyword(validator, value, instance, schema)


def _unique(_validator: Any, value: Any, instance: Any, _schema: Any) -> Iterator[ValidationError]:
    """Look at each element once; the library compares each with each."""
    if value and isinstance(instance, list):
        steps = _STEPS.get()
        seen = {_canonical(one, steps) for one in instance}
        if len(seen) < len(instance):
            yield ValidationError("the array has elements that are not unique")


def _canonical(value: object, steps: _Steps) -> bytes:
    text = msgspec.json.encode(value, order="deterministic")
    steps.take(1 + len(text) // _CHARACTERS)
    return text


_Checker = extend(
    Draft202012Validator,
    {
        name: _counted(name, keyword)
        for name, keyword in {
            **Draft202012Validator.VALIDATORS,
            "additionalProperties": _additional,
            "uniqueItems": _unique,
            **dict.fromkeys(_IGNORED, lambda *_: None),
        }.items()
    },
)
