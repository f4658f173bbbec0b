"""`engine.api.request`: every field of a create request, one by one (H1)."""

from __future__ import annotations

import json
import typing
from typing import Any

import pytest
from openai.types.responses import response_create_params

from engine.api.json import read_object
from engine.api.request import FIELDS, INCLUDABLE, CreateRequest, parse_create
from engine.errors import InvalidRequest
from engine.ids import ItemIds
from engine.limits import Limits

PARSED_APART = {"input", "tools", "tool_choice"}
SCHEMA = {"type": "json_schema", "name": "n", "schema": {"type": "object"}}
OBJECT = {"x": 1}


def parse(**fields: Any) -> CreateRequest:
    body = json.dumps({"model": "m", "input": "hi", **fields}).encode()
    return parse_create(read_object(body), ItemIds("resp_ab"), Limits())


def refused(**fields: Any) -> InvalidRequest:
    with pytest.raises(InvalidRequest) as caught:
        parse(**fields)
    assert caught.value.status == 400
    return caught.value


# field -> good values; (bad value, where `param` points, code) each
TABLE: dict[str, tuple[list[Any], list[tuple[Any, str, str]]]] = {
    "background": ([True, False], [("x", "", "invalid_type")]),
    "context_management": (
        [[], [{"type": "compaction"}], [{"type": "compaction", "compact_threshold": 1000}]],
        [
            ({}, "", "invalid_type"),
            ([{}], "[0].type", "missing_required_parameter"),
            ([OBJECT], "[0].x", "unknown_parameter"),
            ([{"type": "clear"}], "[0].type", "invalid_value"),
            (
                [{"type": "compaction", "compact_threshold": 0}],
                "[0].compact_threshold",
                "invalid_value",
            ),
            ([{"type": "compaction"}] * 2, "", "invalid_value"),
        ],
    ),
    "conversation": (
        ["conv_1", {"id": "conv_1"}],
        [
            ("", "", "invalid_value"),
            (7, "", "invalid_type"),
            ({}, ".id", "missing_required_parameter"),
            ({"id": 7}, ".id", "invalid_type"),
            ({"id": "conv_1", "x": 1}, ".x", "unknown_parameter"),
        ],
    ),
    "frequency_penalty": (
        [-2, 0, 1.5],
        [(2.1, "", "invalid_value"), ("1", "", "invalid_type"), (True, "", "invalid_type")],
    ),
    "include": (
        [[], list(INCLUDABLE)],
        [
            (["x"], "[0]", "invalid_value"),
            ([INCLUDABLE[0], 7], "[1]", "invalid_type"),
            ("x", "", "invalid_type"),
        ],
    ),
    "instructions": (
        [
            "be brief",
            "",
            [
                {
                    "type": "message",
                    "role": "developer",
                    "content": [{"type": "input_text", "text": "be brief"}],
                }
            ],
        ],
        [
            ({}, "", "invalid_type"),
            (7, "", "invalid_type"),
            ([{"role": "user"}], "[0].content", "missing_required_parameter"),
            ([{"type": "reasoning"}], "[0].type", "invalid_value"),
        ],
    ),
    "max_output_tokens": (
        [1, 100],
        [(0, "", "invalid_value"), (1.5, "", "invalid_type"), (True, "", "invalid_type")],
    ),
    "max_tool_calls": ([1], [(0, "", "invalid_value"), ("1", "", "invalid_type")]),
    "metadata": (
        [{}, {"k": "v"}, {str(i): "v" * 512 for i in range(16)}, {"k" * 64: ""}],
        [
            ([], "", "invalid_type"),
            ({"k": 1}, ".k", "invalid_type"),
            ({"k": None}, ".k", "invalid_type"),
            ({"k": "v" * 513}, ".k", "invalid_value"),
            ({"k" * 65: "v"}, "", "invalid_value"),
            ({str(i): "v" for i in range(17)}, "", "invalid_value"),
        ],
    ),
    "model": (["m"], [("", "", "invalid_value"), (7, "", "invalid_type")]),
    "parallel_tool_calls": ([True, False], [("true", "", "invalid_type")]),
    "presence_penalty": ([2], [(-2.1, "", "invalid_value"), ([], "", "invalid_type")]),
    "previous_response_id": (["resp_1"], [("", "", "invalid_value"), ({}, "", "invalid_type")]),
    "prompt": ([{"id": "p"}], [("p", "", "invalid_type")]),
    "prompt_cache_key": (["k"], [("k" * 1025, "", "invalid_value"), (1, "", "invalid_type")]),
    "reasoning": (
        [{}, {"effort": "low", "summary": "auto"}, {"effort": None}],
        [
            ("low", "", "invalid_type"),
            ({"effort": "huge"}, ".effort", "invalid_value"),
            ({"effort": 1}, ".effort", "invalid_type"),
            ({"summary": "long"}, ".summary", "invalid_value"),
            ({"context": "auto"}, ".context", "unknown_parameter"),
        ],
    ),
    "safety_identifier": (["s"], [("s" * 129, "", "invalid_value"), (1, "", "invalid_type")]),
    "service_tier": (["auto", "default"], [("flex", "", "invalid_value"), (1, "", "invalid_type")]),
    "store": ([True, False], [("no", "", "invalid_type"), (0, "", "invalid_type")]),
    "stream": ([True, False], [("yes", "", "invalid_type"), (1, "", "invalid_type")]),
    "stream_options": (
        [{}, {"include_obfuscation": False}, {"include_obfuscation": None}],
        [
            ({"include_obfuscation": True}, ".include_obfuscation", "unsupported_value"),
            ({"include_obfuscation": "no"}, ".include_obfuscation", "invalid_type"),
            ({"include_usage": True}, ".include_usage", "unknown_parameter"),
            ([], "", "invalid_type"),
        ],
    ),
    "temperature": ([0, 2, 0.7], [(2.5, "", "invalid_value"), ("hot", "", "invalid_type")]),
    "text": (
        [
            {},
            {"format": {"type": "text"}, "verbosity": "low"},
            {"format": {"type": "json_object"}},
            {"format": SCHEMA},
            {"format": {**SCHEMA, "strict": True, "description": "d"}},
        ],
        [
            ("text", "", "invalid_type"),
            ({"verbosity": "loud"}, ".verbosity", "invalid_value"),
            ({"format": "text"}, ".format", "invalid_type"),
            ({"format": {}}, ".format.type", "missing_required_parameter"),
            ({"format": {"type": "xml"}}, ".format.type", "invalid_value"),
            ({"format": {"type": "text", "name": "n"}}, ".format.name", "unknown_parameter"),
            ({"format": {"type": "json_schema"}}, ".format.name", "missing_required_parameter"),
            ({"format": {**SCHEMA, "name": "a b"}}, ".format.name", "invalid_value"),
            (
                {"format": {**SCHEMA, "schema": None}},
                ".format.schema",
                "missing_required_parameter",
            ),
            ({"format": {**SCHEMA, "schema": []}}, ".format.schema", "invalid_type"),
            ({"format": {**SCHEMA, "strict": "yes"}}, ".format.strict", "invalid_type"),
            ({"format": {**SCHEMA, "description": 1}}, ".format.description", "invalid_type"),
            ({"format": {**SCHEMA, "x": 1}}, ".format.x", "unknown_parameter"),
            ({"x": 1}, ".x", "unknown_parameter"),
        ],
    ),
    "top_logprobs": ([0, 20], [(21, "", "invalid_value"), (1.0, "", "invalid_type")]),
    "top_p": ([0, 1], [(1.1, "", "invalid_value"), ("1", "", "invalid_type")]),
    "truncation": (["disabled", "auto"], [("some", "", "invalid_value"), (1, "", "invalid_type")]),
    "user": (["u"], [("u" * 1025, "", "invalid_value"), (1, "", "invalid_type")]),
    "access_programs": ([], [({"cyber": "standard"}, "", "unsupported_value")]),
    "image": ([], [({"context_compression": "auto"}, "", "unsupported_value")]),
    "moderation": ([], [({"model": "m"}, "", "unsupported_value")]),
    "prompt_cache_options": ([], [({"mode": "implicit"}, "", "unsupported_value")]),
    "prompt_cache_retention": ([], [("24h", "", "unsupported_value")]),
    "client_metadata": ([{}, OBJECT], [("x", "", "invalid_type")]),
}
# Fields that model servers add: sent on as they came.
SENT = sorted(name for name in FIELDS if name not in TABLE)

GOOD = [(name, value) for name, (values, _) in TABLE.items() for value in values]
BAD = [(name, *bad) for name, (_, bads) in TABLE.items() for bad in bads]


def test_no_field_of_the_sdk_is_missing() -> None:
    """H1: each is honoured or refused; none is unknown."""
    known = set(FIELDS) | PARSED_APART
    base = typing.get_type_hints(response_create_params.ResponseCreateParamsBase)
    streaming = typing.get_type_hints(response_create_params.ResponseCreateParamsStreaming)
    assert {*base, *streaming} - known == set()


def test_each_field_of_the_api_has_its_row_here() -> None:
    """What is not in this table goes to the model server unseen."""
    base = typing.get_type_hints(response_create_params.ResponseCreateParamsBase)
    assert set(base) - PARSED_APART <= set(TABLE)
    assert all(FIELDS[name].forward for name in SENT)


@pytest.mark.parametrize(("name", "value"), GOOD, ids=lambda v: repr(v)[:40])
def test_a_good_value_is_taken(name: str, value: Any) -> None:
    """And kept, but for nulls inside."""
    kept = parse(**{name: value}).values[name]
    assert kept == value or (isinstance(value, dict) and None in value.values())


@pytest.mark.parametrize(("name", "value", "where", "code"), BAD, ids=lambda v: repr(v)[:40])
def test_a_bad_value_is_refused_at_its_place(name: str, value: Any, where: str, code: str) -> None:
    """H1: 400 with exact `param` and `code`, and a message that names the place."""
    error = refused(**{name: value})
    assert (error.param, error.code) == (f"{name}{where}", code)
    assert f"{name}{where}" in error.message


@pytest.mark.parametrize("name", sorted({*FIELDS, "tools", "tool_choice"} - {"model"}))
def test_null_means_absent(name: str) -> None:
    """H1: SDKs send null for what was not given; no server is sent one."""
    request = parse(**{name: None})
    assert name not in request.values
    assert request == parse()


@pytest.mark.parametrize("name", SENT)
def test_what_servers_add_passes_as_it_came(name: str) -> None:
    """The server that knows it judges it."""
    assert parse(**{name: OBJECT}).values[name] == OBJECT


@pytest.mark.parametrize("name", ["n", "messages", "max_tokens", "x", "Stream", ""])
def test_an_unknown_field_is_refused(name: str) -> None:
    """H1: unless it is null."""
    error = refused(**{name: 1})
    assert (error.param, error.code) == (name, "unknown_parameter")
    parse(**{name: None})


@pytest.mark.parametrize("name", ["model", "input"])
def test_model_and_input_are_required(name: str) -> None:
    """Absent or null."""
    body = {"model": "m", "input": "hi"}
    del body[name]
    with pytest.raises(InvalidRequest) as caught:
        parse_create(read_object(json.dumps(body).encode()), ItemIds("resp_ab"), Limits())
    assert (caught.value.param, caught.value.code) == (name, "missing_required_parameter")
    assert refused(**{name: None}).code == "missing_required_parameter"


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"[]", b"null", b'"x"', b'{"model":\xff}', b'{"a":' + b"[" * 100_000, b"{}x"],
    ids=repr,
)
def test_a_body_that_is_no_object_is_refused(body: bytes) -> None:
    """400 `invalid_json`; nothing else happens."""
    with pytest.raises(InvalidRequest) as caught:
        parse_create(read_object(body[:200_000]), ItemIds("resp_ab"), Limits())
    assert caught.value.code == "invalid_json"


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("input", b'"\\ud800"'),
        ("instructions", b'"\xff"'),
        ("metadata", b"{" * 5000 + b"}" * 5000),
        ("user", b'"a'),
        ("temperature", b"NaN"),
        ("tools", b"[" * 100_000 + b"]" * 100_000),
    ],
)
def test_a_value_that_is_no_json_is_refused(field: str, value: bytes) -> None:
    """Lone surrogates, bad UTF-8, endless nesting, NaN."""
    body = b'{"model":"m","input":"hi","%b":%b}' % (field.encode(), value)
    with pytest.raises(InvalidRequest) as caught:
        parse_create(read_object(body), ItemIds("resp_ab"), Limits())
    assert caught.value.code in ("invalid_json", "invalid_type")


def test_the_defaults_are_those_of_the_api() -> None:
    """Stored, not streamed, parallel calls."""
    request = parse()
    assert (request.store, request.stream, request.parallel_tool_calls) == (True, False, True)
    assert (request.tools, request.logprobs, request.previous_response_id) == ((), False, None)
    assert request.values == {"model": "m"}


def test_what_the_agents_sdk_sends_is_taken() -> None:
    """Empty arrays and untyped messages are normal (openai_api.md E)."""
    request = parse(
        include=[], tools=[], input=[{"content": "hi", "role": "user"}], instructions="be brief"
    )
    assert len(request.input) == 1


def test_log_probabilities_are_asked_for_by_include() -> None:
    """And by nothing else."""
    assert parse(include=["message.output_text.logprobs"]).logprobs
    assert not parse(include=["file_search_call.results"]).logprobs


def test_nulls_inside_text_are_not_kept() -> None:
    """No server is sent a null, no response echoes one (openai_api.md §0.3)."""
    text = {"format": {**SCHEMA, "strict": None, "description": None}, "verbosity": None}
    assert parse(text=text).values["text"] == {"format": SCHEMA}
    assert parse(text={"format": None}).values["text"] == {}


def test_a_long_wrong_value_is_shown_in_part() -> None:
    """An error is no echo of the request."""
    assert len(refused(service_tier="x" * 10_000).message) < 300


def test_what_is_not_stored_cannot_run_in_the_background() -> None:
    """H1: nobody could ever read it."""
    error = refused(background=True, store=False)
    assert (error.param, error.code) == ("background", "unsupported_value")
    assert parse(background=True).background
    assert not parse(background=False, store=False).background


def _nested(levels: int) -> Any:
    value: Any = []
    for level in range(levels - 1):
        value = [value] if level % 2 else {"a": value, "b": []}
    return value


@pytest.mark.parametrize(
    ("make", "param"),
    [
        (lambda value: {"client_metadata": value}, "client_metadata"),
        (lambda value: {"chat_template_kwargs": value}, "chat_template_kwargs"),
        (lambda value: {"structured_outputs": value}, "structured_outputs"),
        (lambda value: {"text": {"format": {**SCHEMA, "schema": value}}}, "text.format.schema"),
        (
            lambda value: {"tools": [{"type": "function", "name": "f", "parameters": value}]},
            "tools[0].parameters",
        ),
    ],
)
def test_what_may_hold_anything_is_nested_200_levels_at_most(make: Any, param: str) -> None:
    """X5, H1: as deep as it is, it is written and read on all the way."""
    parse(**make(_nested(200)))
    error = refused(**make(_nested(202)))
    assert (error.param, error.code) == (param, "invalid_json")
