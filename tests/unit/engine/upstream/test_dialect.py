"""`engine.upstream.dialect`: the same conversations over both dialects come to the same items."""

from __future__ import annotations

import itertools
import json
from typing import Any

import pytest

from engine.upstream.dialect import DIALECTS
from tests.support.conversations import Told, converse, turn
from tests.support.dialogues import CONVERSATIONS, FORMAT, TIME, WEATHER
from tests.support.stream_rules import check_stream


@pytest.mark.parametrize("name", CONVERSATIONS)
def test_a_conversation_is_the_same_over_both_dialects(name: str) -> None:
    """R14, M2, M4: items, endings and errors; ids apart. The demo is as strict as vLLM."""
    over = {dialect: converse(dialect, CONVERSATIONS[name]) for dialect in DIALECTS}
    for one, other in zip(over["responses"], over["chat"], strict=True):
        assert one.items == other.items
        assert one.ending == other.ending


@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize("name", CONVERSATIONS)
def test_each_turn_keeps_the_rules_of_a_stream(name: str, dialect: str) -> None:
    """R1-R9: whatever the dialect; a refusal is no stream."""
    for told in converse(dialect, CONVERSATIONS[name]):
        if told.raw:
            check_stream(told.raw)


@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize("name", CONVERSATIONS)
def test_a_longer_conversation_begins_with_the_shorter_one(name: str, dialect: str) -> None:
    """M9: what was sent is sent again, byte by byte, before what is new."""
    told = converse(dialect, CONVERSATIONS[name])
    sent = [_conversation(one) for one in told if "instructions" not in one.asked]
    for shorter, longer in itertools.pairwise(sent):
        if shorter[:1] != longer[:1]:
            # Instructions are not inherited (M2); in chat they are the first message.
            continue
        assert longer[: len(shorter)] == shorter


def _conversation(told: Told) -> list[str]:
    asked = told.asked
    return [json.dumps(entry) for entry in asked.get("messages") or asked["input"]]


@pytest.mark.parametrize("dialect", DIALECTS)
def test_no_null_is_sent(dialect: str) -> None:
    """Null means absent: servers fail on nulls, or take them for values."""
    fields = dict.fromkeys(
        ("temperature", "tools", "tool_choice", "text", "metadata", "include", "user")
    )
    nested = {
        "reasoning": {"effort": None, "summary": None},
        "text": {"format": {**FORMAT, "strict": None, "description": None}, "verbosity": None},
        "tools": [{**WEATHER, "strict": None, "description": None}, {**TIME, "parameters": None}],
    }
    for given in (fields, nested):
        [told] = converse(dialect, [turn("hi", **given)])
        assert None not in list(_values(told.asked))


def _values(value: object) -> Any:
    yield value
    if isinstance(value, dict | list):
        for inner in value.values() if isinstance(value, dict) else value:
            yield from _values(inner)
