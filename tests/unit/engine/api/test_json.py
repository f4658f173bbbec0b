"""`engine.api.json`: strict in, compact out."""

from __future__ import annotations

import msgspec
import pytest

from engine.api.json import encode, is_json, is_json_object, read_object, read_value, type_name
from engine.errors import InvalidRequest


def test_the_values_of_an_object_stay_unparsed() -> None:
    """And in their order."""
    read = read_object(b'{"b": [1,  2], "a": 1.0}')
    assert {name: bytes(value) for name, value in read.items()} == {"b": b"[1,  2]", "a": b"1.0"}


@pytest.mark.parametrize("body", [b"", b"[]", b"{", b'{"a":}', b"[" * 100_000])
def test_what_is_no_object_is_refused(body: bytes) -> None:
    """400 `invalid_json`."""
    with pytest.raises(InvalidRequest) as caught:
        read_object(body)
    assert caught.value.code == "invalid_json"


def test_numbers_keep_their_kind() -> None:
    """An int stays one, a float stays one, on the way through."""
    assert encode(read_value(msgspec.Raw(b'{"a":1,"b":1.0,"c":1e3}'), "x")) == (
        b'{"a":1,"b":1.0,"c":1000.0}'
    )


@pytest.mark.parametrize("raw", [b"[", b'"\\ud800"', b'"\xff"', b"NaN", b"[" * 100_000 + b"]"])
def test_a_bad_value_names_its_place(raw: bytes) -> None:
    """400 with `param`."""
    with pytest.raises(InvalidRequest) as caught:
        read_value(msgspec.Raw(raw), "input")
    assert (caught.value.param, caught.value.code) == ("input", "invalid_json")


@pytest.mark.parametrize(
    ("text", "whole", "is_object"),
    [
        ("{}", True, True),
        (' {"a": 1} ', True, True),
        ("[]", True, False),
        ("1", True, False),
        ('"x"', True, False),
        ("", False, False),
        ("{", False, False),
        ("{}{}", False, False),
        ("[" * 100_000, False, False),
    ],
)
def test_json_is_told_from_text(text: str, whole: bool, is_object: bool) -> None:
    """One whole document; an object where arguments are meant."""
    assert (is_json(text), is_json_object(text)) == (whole, is_object)


def test_types_have_the_names_of_json() -> None:
    """For messages to clients."""
    values: tuple[object, ...] = ({}, [], "", True, 1, 1.0, None, b"")
    assert [type_name(value) for value in values] == [
        "object", "array", "string", "boolean", "integer", "number", "null", "value",
    ]  # fmt: skip
