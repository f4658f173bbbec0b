"""`engine.api.tools`: declarations of tools, and `tool_choice` in all its forms (H1)."""

from __future__ import annotations

from typing import Any

import pytest

from engine.api.ownership import ToolPolicy
from engine.api.tool_choice import Selection, ToolChoice, parse_tool_choice
from engine.api.tools import FunctionTool, parse_tools
from engine.errors import InvalidRequest

F = {"type": "function", "name": "f"}
G = {"type": "function", "name": "g"}
SCHEMA = {"type": "object", "properties": {"a": {"type": "string"}}}


POLICY = ToolPolicy(
    upstream_types=frozenset({"web_search"}),
    upstream_labels=frozenset({"theirs"}),
    provided=frozenset({"dice"}),
)


def choose(value: object, *tools: dict[str, Any]) -> ToolChoice:
    declared = parse_tools(list(tools), "tools", most=9, policy=POLICY)
    functions = frozenset(tool.name for tool in declared if isinstance(tool, FunctionTool))
    return parse_tool_choice(value, "tool_choice", declared, functions)


def test_a_function_is_shown_with_all_keys_and_sent_without_nulls() -> None:
    """R10 wants the keys; servers fail on nulls, and want a schema."""
    [tool] = parse_tools([F], "tools", most=9)
    assert isinstance(tool, FunctionTool)
    assert tool.shown() == {**F, "description": None, "parameters": None, "strict": None}
    assert tool.sent() == {**F, "parameters": {"type": "object", "properties": {}}}

    whole = {**F, "description": "d", "parameters": SCHEMA, "strict": True}
    [tool] = parse_tools([whole], "tools", most=9)
    assert isinstance(tool, FunctionTool)
    assert tool.shown() == tool.sent() == whole


def test_nulls_of_a_function_mean_absent() -> None:
    """H1: also of keys that are not known."""
    [tool] = parse_tools([{**F, "description": None, "strict": None, "x": None}], "tools", most=9)
    assert tool == parse_tools([F], "tools", most=9)[0]


@pytest.mark.parametrize(
    ("tools", "param", "code"),
    [
        ({}, "tools", "invalid_type"),
        (["f"], "tools[0]", "invalid_type"),
        ([{}], "tools[0].type", "missing_required_parameter"),
        ([{"type": 1}], "tools[0].type", "invalid_type"),
        ([{"type": "function"}], "tools[0].name", "missing_required_parameter"),
        ([{**F, "name": ""}], "tools[0].name", "invalid_value"),
        ([{**F, "name": "a b"}], "tools[0].name", "invalid_value"),
        ([{**F, "name": "n" * 65}], "tools[0].name", "invalid_value"),
        ([F, {**G, "description": 1}], "tools[1].description", "invalid_type"),
        ([{**F, "parameters": []}], "tools[0].parameters", "invalid_type"),
        ([{**F, "strict": "true"}], "tools[0].strict", "invalid_type"),
        ([{**F, "x": 1}], "tools[0].x", "unknown_parameter"),
        ([F, F], "tools[1].name", "invalid_value"),
        ([F] * 10, "tools", "invalid_value"),
        (
            [{"type": "function", "function": {"name": "f"}}],
            "tools[0].function",
            "unknown_parameter",
        ),
    ],
)
def test_a_wrong_declaration_is_refused_at_its_place(tools: Any, param: str, code: str) -> None:
    """H1: exact `param` and `code`."""
    with pytest.raises(InvalidRequest) as caught:
        parse_tools(tools, "tools", most=9)
    assert (caught.value.param, caught.value.code) == (param, code)


@pytest.mark.parametrize(
    "kind",
    [
        "file_search", "web_search", "web_search_preview", "code_interpreter", "custom",
        "computer_use_preview", "image_generation", "local_shell", "shell", "apply_patch",
        "namespace", "no_such_tool",
    ],
)  # fmt: skip
def test_a_tool_that_we_cannot_run_or_return_is_refused(kind: str) -> None:
    """H1: never silently not shown to the model."""
    with pytest.raises(InvalidRequest) as caught:
        parse_tools([F, {"type": kind, "name": "x"}], "tools", most=9)
    assert (caught.value.param, caught.value.code) == ("tools[1].type", "unsupported_value")
    assert kind in caught.value.message or kind == "file_search"


ALLOWED = {"type": "allowed_tools", "mode": "auto", "tools": [F]}


@pytest.mark.parametrize(
    ("value", "tools", "sent", "allowed"),
    [
        ("auto", [], None, None),
        ("none", [], None, None),
        ("auto", [F], None, None),
        ("none", [F], "none", None),
        ("required", [F], "required", None),
        (F, [F, G], F, None),
        (ALLOWED, [F, G], None, {"f"}),
        ({**ALLOWED, "mode": "required"}, [F, G], "required", {"f"}),
        ({**ALLOWED, "tools": [F, G]}, [F, G], None, {"f", "g"}),
    ],
)
def test_a_choice_is_taken_in_each_of_its_forms(
    value: Any, tools: list[dict[str, Any]], sent: object, allowed: set[str] | None
) -> None:
    """What is shown is what was asked; the server is told only what changes something."""
    choice = choose(value, *tools)
    assert (choice.shown, choice.sent) == (value, sent)
    selected = None if allowed is None else Selection(functions=frozenset(allowed))
    assert choice.allowed == selected


@pytest.mark.parametrize("given", [{"mode": None}, {}])
def test_allowed_tools_are_auto_unless_told(given: dict[str, Any]) -> None:
    """And the response says so: clients want the key."""
    choice = choose({"type": "allowed_tools", "tools": [F], **given}, F)
    assert choice.shown == ALLOWED
    assert choice.sent is None


@pytest.mark.parametrize(
    ("value", "param", "code"),
    [
        ("any", "", "invalid_value"),
        (7, "", "invalid_type"),
        ([], "", "invalid_type"),
        ({}, ".type", "missing_required_parameter"),
        ({"type": "function"}, ".name", "missing_required_parameter"),
        ({**F, "name": "x"}, ".name", "invalid_value"),
        ({**F, "name": 1}, ".name", "invalid_type"),
        ({**F, "x": 1}, ".x", "unknown_parameter"),
        ({"type": "function", "function": {"name": "f"}}, ".function", "unknown_parameter"),
        ({"type": "file_search"}, ".type", "unsupported_value"),
        ({"type": "mcp", "server_label": "s"}, ".type", "unsupported_value"),
        ({"type": "custom", "name": "f"}, ".type", "unsupported_value"),
        ({"type": "shell"}, ".type", "unsupported_value"),
        ({"type": "programmatic_tool_calling"}, ".type", "unsupported_value"),
        ({**ALLOWED, "tools": []}, ".tools", "invalid_value"),
        ({**ALLOWED, "tools": None}, ".tools", "missing_required_parameter"),
        ({**ALLOWED, "tools": [{**F, "name": "x"}]}, ".tools[0].name", "invalid_value"),
        ({**ALLOWED, "tools": [F, {"type": "mcp"}]}, ".tools[1].type", "unsupported_value"),
        ({**ALLOWED, "tools": ["f"]}, ".tools[0]", "invalid_type"),
        ({**ALLOWED, "mode": "none"}, ".mode", "invalid_value"),
        ({**ALLOWED, "x": 1}, ".x", "unknown_parameter"),
    ],
)
def test_a_wrong_choice_is_refused_at_its_place(value: Any, param: str, code: str) -> None:
    """H1: exact `param` and `code`."""
    with pytest.raises(InvalidRequest) as caught:
        choose(value, F)
    assert (caught.value.param, caught.value.code) == (f"tool_choice{param}", code)


def test_a_required_call_needs_a_tool() -> None:
    """vLLM would refuse it; older ones would not."""
    with pytest.raises(InvalidRequest) as caught:
        choose("required")
    assert (caught.value.param, caught.value.code) == ("tool_choice", "invalid_value")


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        (
            {"server_url": "https://x/", "require_approval": {}, "tunnel_id": "t"},
            "tools[0].tunnel_id",
        ),
    ],
)
def test_what_of_a_server_cannot_be_honoured_is_refused(fields: dict[str, Any], param: str) -> None:
    """H1: consent is never taken for granted."""
    with pytest.raises(InvalidRequest) as caught:
        parse_tools([{"type": "mcp", "server_label": "s", **fields}], "tools", most=9)
    assert (caught.value.param, caught.value.code) == (param, "unsupported_value")


def test_two_servers_with_one_label_are_refused() -> None:
    """T5: their items could not be told apart."""
    one = {"type": "mcp", "server_label": "s", "server_url": "https://x/"}
    with pytest.raises(InvalidRequest) as caught:
        parse_tools([{**one, "require_approval": "never"}] * 2, "tools", most=9)
    assert caught.value.param == "tools[1].server_label"
