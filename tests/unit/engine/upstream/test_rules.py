"""`engine.upstream.rules`: what a turn may do follows from the request (T4)."""

from __future__ import annotations

from typing import Any

import pytest

from engine.upstream.rules import turn_rules
from tests.support.playback import functions, request

F, G = functions("fg")


@pytest.mark.parametrize(
    ("fields", "tools", "declared"),
    [
        ({}, False, []),
        ({"tools": [F, G]}, True, ["f", "g"]),
        ({"tools": [F, G], "tool_choice": "none"}, False, ["f", "g"]),
        ({"tools": [F, G], "tool_choice": {"type": "allowed_tools", "tools": [F]}}, True, ["f"]),
    ],
)
def test_text_can_be_a_call_of_what_may_be_called(
    fields: dict[str, Any], tools: bool, declared: list[str]
) -> None:
    """T4, R8: nothing is held of a turn that may not call."""
    rules = turn_rules(request(**fields))
    assert rules.tools is tools
    assert [tool.name for tool in rules.declared or ()] == declared


@pytest.mark.parametrize(
    ("text", "structured"),
    [
        (None, False),
        ({}, False),
        ({"format": {"type": "text"}}, False),
        ({"format": {"type": "json_object"}}, True),
    ],
)
def test_json_that_is_asked_for_is_known(text: Any, structured: bool) -> None:
    """R8: it may look like a call and is none."""
    assert turn_rules(request(text=text)).structured is structured
