"""`engine.api.items`: input items in all forms, and the pairing of calls and outputs (H1, M6, M8)."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest

from engine.api.items import Entry, Reference, parse_input, require_pairs
from engine.errors import InvalidRequest
from engine.ids import ItemIds
from engine.ports import StoredItem
from tests.support.input_shapes import CALL, OUTPUT, SHAPES, TEXT, THOUGHT

IMAGE = {"type": "input_image", "image_url": "https://x/y.png"}
USER = {"role": "user", "content": "hi"}
ANSWER = {"type": "output_text", "text": "yo"}


def parse(value: Any, most: int = 99) -> list[Entry]:
    return parse_input(msgspec.Raw(json.dumps(value).encode()), ItemIds("resp_ab"), most=most)


def shown(value: Any) -> dict[str, Any]:
    """Return one item in the form that the API shows."""
    [item] = parse([value])
    assert isinstance(item, StoredItem)
    found: dict[str, Any] = json.loads(item.item)
    assert (item.id, item.type) == (found["id"], found["type"])
    return found


def refused(value: Any) -> tuple[str | None, str | None]:
    with pytest.raises(InvalidRequest) as caught:
        parse(value)
    return caught.value.param, caught.value.code


def test_a_string_is_a_message_of_the_user() -> None:
    """The shortest form."""
    [item] = parse("hi")
    assert isinstance(item, StoredItem)
    assert json.loads(item.item) == {
        "id": "msg_ab0000",
        "type": "message",
        "status": "completed",
        "role": "user",
        "content": [{"type": "input_text", "text": "hi"}],
    }
    assert parse("") != []


@pytest.mark.parametrize("role", ["user", "system", "developer", "assistant"])
@pytest.mark.parametrize("typed", [{}, {"type": "message"}, {"type": None}])
def test_a_message_may_come_without_a_type_and_as_a_string(role: str, typed: Any) -> None:
    """M8: the easy form; it is shown typed and as a list."""
    item = shown({"role": role, "content": "hi", **typed})
    assert (item["type"], item["role"], item["status"]) == ("message", role, "completed")
    [part] = item["content"]
    assert part["text"] == "hi"
    assert part["type"] == ("output_text" if role == "assistant" else "input_text")


# what is sent -> what is shown, beside id, type and status
FORMS: list[tuple[dict[str, Any], dict[str, Any]]] = [
    (
        {"role": "user", "content": [TEXT, IMAGE]},
        {"role": "user", "content": [TEXT, {**IMAGE, "detail": "auto"}]},
    ),
    (
        {"role": "user", "content": [{**IMAGE, "detail": "low", "file_id": None}]},
        {"role": "user", "content": [{**IMAGE, "detail": "low"}]},
    ),
    (
        {"role": "user", "content": [{**TEXT, "prompt_cache_breakpoint": {"mode": "explicit"}}]},
        {"role": "user", "content": [TEXT]},
    ),
    (
        {"role": "assistant", "content": [ANSWER, {"type": "refusal", "refusal": "no"}]},
        {
            "role": "assistant",
            "content": [
                {**ANSWER, "annotations": [], "logprobs": []},
                {"type": "refusal", "refusal": "no"},
            ],
        },
    ),
    (
        {"role": "assistant", "content": [TEXT], "phase": "commentary"},
        {
            "role": "assistant",
            "phase": "commentary",
            "content": [{"type": "output_text", "text": "hi", "annotations": [], "logprobs": []}],
        },
    ),
    (CALL, {"call_id": "call_1", "name": "f", "arguments": "{}"}),
    ({**CALL, "arguments": "", "caller": {"type": "direct"}}, {
        "call_id": "call_1", "name": "f", "arguments": "",
    }),
    ({**CALL, "call_id": "functions.f:0"}, {
        "call_id": "functions.f:0", "name": "f", "arguments": "{}",
    }),
    (OUTPUT, {"call_id": "call_1", "output": "42"}),
    ({**OUTPUT, "output": ""}, {"call_id": "call_1", "output": ""}),
    (
        {**OUTPUT, "output": [TEXT, IMAGE]},
        {"call_id": "call_1", "output": [TEXT, {**IMAGE, "detail": "auto"}]},
    ),
    (
        {"type": "reasoning", "summary": [], "content": [THOUGHT], "encrypted_content": None},
        {"summary": [], "content": [THOUGHT]},
    ),
    ({"type": "reasoning", "summary": [{"type": "summary_text", "text": "s"}], "content": None}, {
        "summary": [{"type": "summary_text", "text": "s"}],
    }),
    ({"type": "reasoning"}, {"summary": []}),
]  # fmt: skip


@pytest.mark.parametrize(("given", "expected"), FORMS)
def test_an_item_is_shown_in_one_form(given: dict[str, Any], expected: dict[str, Any]) -> None:
    """M8: typed, with id and status, content as a list."""
    item = shown(given)
    assert {k: v for k, v in item.items() if k not in ("id", "type", "status")} == expected
    assert item["status"] == "completed"


@pytest.mark.parametrize(("given", "_expected"), FORMS)
def test_ids_and_statuses_of_the_client_are_kept(given: dict[str, Any], _expected: object) -> None:
    """Null ones are filled in."""
    item = shown({**given, "id": "given_1", "status": "incomplete"})
    assert (item["id"], item["status"]) == ("given_1", "incomplete")
    item = shown({**given, "id": None, "status": None})
    assert item["id"].startswith({"message": "msg", "reasoning": "rs"}.get(item["type"], "fc"))


@pytest.mark.parametrize(("given", "_expected"), FORMS)
def test_what_was_shown_can_be_sent_again(given: dict[str, Any], _expected: object) -> None:
    """M4: a list of ours comes back verbatim and stays the same, also for the model."""
    first = shown(given)
    [once], [again] = parse([given]), parse([first])
    assert shown(first) == first
    assert isinstance(once, StoredItem)
    assert isinstance(again, StoredItem)
    assert once.replay == again.replay


@pytest.mark.parametrize(
    "value",
    [{"type": "item_reference", "id": "msg_1"}, {"id": "msg_1"}, {"id": "msg_1", "type": None}],
)
def test_a_reference_is_left_to_be_resolved(value: dict[str, Any]) -> None:
    """With or without its type."""
    assert parse([USER, value])[1] == Reference("msg_1", "input[1]")


def at(field: str, value: Any, item: dict[str, Any]) -> dict[str, Any]:
    return {**item, field: value}


def user(*content: Any) -> dict[str, Any]:
    return {"role": "user", "content": list(content)}


REASONING = {"type": "reasoning", "summary": []}


@pytest.mark.parametrize(
    ("item", "param", "code"),
    [
        ("hi", "", "invalid_type"),
        (None, "", "invalid_type"),
        ({}, ".role", "missing_required_parameter"),
        (at("type", "", USER), ".type", "unsupported_value"),
        (at("type", 0, USER), ".type", "invalid_type"),
        (at("role", "tool", USER), ".role", "invalid_value"),
        (at("role", None, USER), ".role", "missing_required_parameter"),
        (at("content", None, USER), ".content", "missing_required_parameter"),
        (at("content", 7, USER), ".content", "invalid_type"),
        (at("content", {"type": "input_text"}, USER), ".content", "invalid_type"),
        (at("name", "bob", USER), ".name", "unknown_parameter"),
        (at("phase", "later", USER), ".phase", "invalid_value"),
        (at("status", "done", USER), ".status", "invalid_value"),
        (at("id", "", USER), ".id", "invalid_value"),
        (at("id", "x" * 129, USER), ".id", "invalid_value"),
        (user("hi"), ".content[0]", "invalid_type"),
        (user({}), ".content[0].type", "missing_required_parameter"),
        (user({"type": "text", "text": "x"}), ".content[0].type", "unsupported_value"),
        (user(ANSWER), ".content[0].type", "unsupported_value"),
        (user(TEXT, {"type": "input_file"}), ".content[1]", "missing_required_parameter"),
        (user(TEXT, {"type": "input_file", "file_id": "f", "file_data": "eA=="}), ".content[1]",
         "invalid_value"),
        (user(TEXT, {"type": "input_file", "file_url": "ftp://x"}), ".content[1].file_url",
         "invalid_value"),
        (user({"type": "input_audio"}), ".content[0].type", "unsupported_value"),
        (user({"type": "input_text"}), ".content[0].text", "missing_required_parameter"),
        (user({**TEXT, "text": 7}), ".content[0].text", "invalid_type"),
        (user({**TEXT, "x": 7}), ".content[0].x", "unknown_parameter"),
        (user({**IMAGE, "file_id": "f"}), ".content[0]", "invalid_value"),
        (user({"type": "input_image"}), ".content[0].image_url", "missing_required_parameter"),
        (user({**IMAGE, "image_url": "file:///x"}), ".content[0].image_url", "invalid_value"),
        (user({**IMAGE, "image_url": {"url": "x"}}), ".content[0].image_url", "invalid_type"),
        (user({**IMAGE, "detail": "ultra"}), ".content[0].detail", "invalid_value"),
        (
            {"role": "assistant", "content": [{**ANSWER, "annotations": {}}]},
            ".content[0].annotations",
            "invalid_type",
        ),
        (
            {"role": "assistant", "content": [{"type": "refusal"}]},
            ".content[0].refusal",
            "missing_required_parameter",
        ),
        ({"role": "assistant", "content": [IMAGE]}, ".content[0].type", "unsupported_value"),
        (at("call_id", None, CALL), ".call_id", "missing_required_parameter"),
        (at("call_id", "", CALL), ".call_id", "invalid_value"),
        (at("call_id", "a\x00b", CALL), ".call_id", "invalid_value"),
        (at("name", "a b", CALL), ".name", "invalid_value"),
        (at("arguments", {}, CALL), ".arguments", "invalid_type"),
        (at("arguments", None, CALL), ".arguments", "missing_required_parameter"),
        (at("x", 1, CALL), ".x", "unknown_parameter"),
        (at("output", None, OUTPUT), ".output", "missing_required_parameter"),
        (at("output", {"a": 1}, OUTPUT), ".output", "invalid_type"),
        (at("output", [ANSWER], OUTPUT), ".output[0].type", "unsupported_value"),
        (at("call_id", 1, OUTPUT), ".call_id", "invalid_type"),
        (at("encrypted_content", "x", REASONING), ".encrypted_content", "unsupported_value"),
        (at("summary", "x", REASONING), ".summary", "invalid_type"),
        (at("content", [TEXT], REASONING), ".content[0].type", "invalid_value"),
        (
            at("summary", [{"type": "summary_text"}], REASONING),
            ".summary[0].text",
            "missing_required_parameter",
        ),
        ({"type": "item_reference"}, ".id", "missing_required_parameter"),
        ({"type": "item_reference", "id": ""}, ".id", "invalid_value"),
        ({"type": "item_reference", "id": "x", "y": 1}, ".y", "unknown_parameter"),
    ],
)  # fmt: skip
def test_a_wrong_item_is_refused_at_its_place(item: Any, param: str, code: str) -> None:
    """H1: exact `param` and `code`."""
    assert refused([USER, item]) == (f"input[1]{param}", code)


@pytest.mark.parametrize(
    "kind",
    [
        "computer_call", "computer_call_output", "web_search_call",
        "image_generation_call", "code_interpreter_call", "local_shell_call", "shell_call",
        "apply_patch_call", "custom_tool_call", "custom_tool_call_output", "no_such_item",
    ],
)  # fmt: skip
def test_an_item_that_we_cannot_replay_is_refused(kind: str) -> None:
    """H1: it would reach a model server that fails on it."""
    assert refused([{"type": kind, "id": "x_1"}]) == ("input[0].type", "unsupported_value")


@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: shape.name)
def test_each_measured_shape_is_taken_or_refused_with_a_place(shape: Any) -> None:
    """M4: 64 shapes that clients send; what we take is encoded for every server."""
    refusal: InvalidRequest | None = None
    item: Entry | None = None
    try:
        [item] = parse([shape.item])
    except InvalidRequest as error:
        refusal = error
    if refusal is not None:
        assert (refusal.param or "").startswith("input[0]")
    if isinstance(item, StoredItem) and item.replay is not None:
        assert json.loads(item.replay)


@pytest.mark.parametrize(
    ("value", "code"),
    [
        ([], "invalid_value"),
        ([USER] * 100, "invalid_value"),
        (7, "invalid_type"),
        ({}, "invalid_type"),
    ],
)
def test_the_input_as_a_whole_is_checked(value: Any, code: str) -> None:
    """X5: at most so many items, at least one."""
    assert refused(value) == ("input", code)


def test_a_text_has_a_limit() -> None:
    """X5: the API's own."""
    assert refused([user({**TEXT, "text": "x" * 10_485_761})]) == (
        "input[0].content[0].text",
        "invalid_value",
    )


# -- pairs -------------------------------------------------------------------------------------------


def pairs(*items: dict[str, Any], pending: tuple[str, ...] = ()) -> None:
    parsed = [item for item in parse(list(items)) if isinstance(item, StoredItem)]
    require_pairs(frozenset(pending), parsed)


def output(call_id: str) -> dict[str, Any]:
    return {**OUTPUT, "call_id": call_id}


def call(call_id: str, **fields: Any) -> dict[str, Any]:
    return {**CALL, "call_id": call_id, **fields}


@pytest.mark.parametrize(
    ("items", "pending"),
    [
        ([USER], ()),
        ([output("a")], ("a",)),
        ([output("b"), USER, output("a")], ("a", "b")),
        ([call("a"), output("a")], ()),
        ([call("a"), call("b"), output("b"), output("a")], ()),
        ([call("a"), output("a"), call("a"), output("a")], ()),
        ([call("b"), output("b"), output("a")], ("a",)),
        ([call("a", status="incomplete"), USER], ()),
    ],
)
def test_calls_and_outputs_that_pair_up_are_taken(
    items: list[dict[str, Any]], pending: tuple[str, ...]
) -> None:
    """M6: in any order, ids used again in a later turn, a cut call without its output."""
    pairs(*items, pending=pending)


@pytest.mark.parametrize(
    ("items", "pending", "param", "code"),
    [
        ([USER], ("a",), "input", "missing_tool_output"),
        ([output("a")], ("a", "b"), "input", "missing_tool_output"),
        ([call("a")], (), "input", "missing_tool_output"),
        ([output("a")], (), "input[0].call_id", "unknown_call_id"),
        ([USER, output("x")], ("a",), "input[1].call_id", "unknown_call_id"),
        ([output("a"), output("a")], ("a",), "input[1].call_id", "unknown_call_id"),
        ([output("a"), call("a")], (), "input[0].call_id", "unknown_call_id"),
        ([call("a"), call("a"), output("a")], (), "input[1].call_id", "duplicate_call_id"),
        ([call("a"), output("a")], ("a",), "input[0].call_id", "duplicate_call_id"),
    ],
)
def test_calls_and_outputs_that_do_not_pair_up_are_refused(
    items: list[dict[str, Any]], pending: tuple[str, ...], param: str, code: str
) -> None:
    """M6: missing, unknown, twice, before its call."""
    with pytest.raises(InvalidRequest) as caught:
        pairs(*items, pending=pending)
    assert (caught.value.param, caught.value.code) == (param, code)
