"""`engine.api.json`: strict in, compact out."""

from __future__ import annotations

import msgspec
import pytest

from engine.api.json import (
    MOST_VALUES,
    check_values,
    encode,
    is_json,
    is_json_object,
    read_object,
    read_value,
    type_name,
)
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
        ('{"a": [' + "[]," * 50_000 + "[]]}", True, True),
        ("[" + "[]," * 50_000 + "[]]", True, False),
        ('{"a": [' + "[]," * 50_000 + "[]}", False, False),
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


MANY = b"[" + b"[]," * (MOST_VALUES // 2) + b"[]]"
PART = b"[" + b"[]," * (MOST_VALUES // 5) + b"[]]"


@pytest.mark.parametrize(
    ("body", "param"),
    [
        (b'{"model":"m","input":%b}' % MANY, "input"),
        (b'{"input":"hi","tools":[{"type":"function","parameters":{"enum":%b}}]}' % MANY, "tools"),
        (b'{"input":"hi","client_metadata":{"a":%b}}' % MANY, "client_metadata"),
        (b'{"variables":%b}' % MANY, None),
        (b'{"input":%b,"tools":%b,"text":%b}' % (PART, PART, PART), None),
        (b'{"input":' + MANY, None),
        (b"{" + b'"a":1,' * MOST_VALUES + b'"b":1}', None),
    ],
)
def test_too_many_values_are_refused_before_they_are_made(body: bytes, param: str | None) -> None:
    """X5: 400 that names the field which holds them, if it is one."""
    with pytest.raises(InvalidRequest, match="too many values") as caught:
        check_values(body)
    assert (caught.value.param, caught.value.code) == (param, "too_many_values")


def test_what_a_large_request_holds_is_let_through() -> None:
    """X5: a long conversation with large tools, and 30 MB of code in one string."""
    message = {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "a"}]}
    schema = {"type": "object", "properties": {"a": {"type": "string", "description": "b"}}}
    tools = [{"type": "function", "name": "f", "parameters": schema}] * 20_000
    check_values(encode({"input": [message] * 100_000, "tools": tools}))
    code = 'a = f(["x", {"y": [1, 2]}], \\"z\\")\n' * 1_000_000
    check_values(encode({"input": code}))
