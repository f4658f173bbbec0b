"""`engine.context.chat_messages`: items as the messages that chat templates take (M4, M9)."""

from __future__ import annotations

import json
from typing import Any

import pytest

from engine.context.chat_messages import chat_messages

PNG = "data:image/png;base64,AA"
U, S, D = ({"role": role, "content": role[0]} for role in ("user", "system", "developer"))
A = {"role": "assistant", "content": "a"}
R = {
    "type": "reasoning",
    "id": "rs_1",
    "summary": [],
    "content": [{"type": "reasoning_text", "text": "hm"}],
}
USER, SYSTEM = {"role": "user", "content": "u"}, {"role": "system", "content": "s"}
LATE = {"role": "user", "content": "s"}


def call(number: int) -> dict[str, Any]:
    return {"type": "function_call", "call_id": f"c{number}", "name": "f", "arguments": "{}"}


def output(number: int, given: Any = "o") -> dict[str, Any]:
    return {"type": "function_call_output", "call_id": f"c{number}", "output": given}


def made(*numbers: int, content: str = "", **more: Any) -> dict[str, Any]:
    function = {"name": "f", "arguments": "{}"}
    calls = [{"id": f"c{n}", "type": "function", "function": function} for n in numbers]
    return {"role": "assistant", "content": content, **more, "tool_calls": calls}


def returned(number: int, content: str = "o") -> dict[str, Any]:
    return {"role": "tool", "tool_call_id": f"c{number}", "content": content}


def image(**detail: str) -> dict[str, Any]:
    return {"type": "input_image", "image_url": PNG, **detail}


def shown(**detail: str) -> dict[str, Any]:
    return {"type": "image_url", "image_url": {"url": PNG, **detail}}


HI = {"type": "input_text", "text": "hi"}

TABLE: dict[str, tuple[list[dict[str, Any]], list[dict[str, Any]]]] = {
    "a word": ([U], [USER]),
    "instructions at the beginning are one": (
        [S, D, U],
        [{"role": "system", "content": "s\n\nd"}, USER],
    ),
    "instructions later on are a user's": ([U, S, U], [USER, LATE, USER]),
    "parts of instructions": (
        [{"type": "message", "role": "system", "content": [HI, HI]}, U],
        [{"role": "system", "content": "hi\n\nhi"}, USER],
    ),
    "an answer": ([U, A, U], [USER, A, USER]),
    "an answer with its thought": ([U, R, A, U], [USER, {**A, "think": "hm"}, USER]),
    "a thought alone": ([U, R, U], [USER, USER]),
    "a call": ([U, call(1), output(1)], [USER, made(1), returned(1)]),
    "text and calls are one": (
        [U, R, A, call(1), call(2), output(2), output(1)],
        [USER, made(1, 2, content="a", think="hm"), returned(1), returned(2)],
    ),
    "text behind a call": (
        [U, call(1), A, output(1)],
        [USER, made(1, content="a"), returned(1)],
    ),
    "call by call": (
        [U, call(1), output(1), call(2), output(2), A],
        [USER, made(1), returned(1), made(2), returned(2), A],
    ),
    "an answer behind the outputs": ([U, call(1), output(1), A], [USER, made(1), returned(1), A]),
    "outputs that come late": ([U, call(1), U, output(1)], [USER, made(1), returned(1), USER]),
    "a call without an output": ([U, call(1), U], [USER, USER]),
    "an output without a call": ([U, output(1)], [USER]),
    "a call_id that is used again": (
        [call(1), output(1, "x"), U, call(1), output(1, "y")],
        [made(1), returned(1, "x"), USER, made(1), returned(1, "y")],
    ),
    "images": (
        [
            {
                "type": "message",
                "role": "user",
                "content": [HI, image(detail="auto"), image(detail="original")],
            }
        ],
        [
            {
                "role": "user",
                "content": [{"type": "text", "text": "hi"}, shown(), shown(detail="high")],
            }
        ],
    ),
    "images that a tool returns": (
        [U, call(1), call(2), output(1, [HI, image()]), output(2, [image()])],
        [
            USER,
            made(1, 2),
            returned(1, "hi"),
            returned(2, "(see the image)"),
            {"role": "user", "content": [shown(), shown()]},
        ],
    ),
}


@pytest.mark.parametrize("what", TABLE)
def test_items_become_messages(what: str) -> None:
    """M4: in the order that templates want: system first, outputs right behind their calls."""
    items, expected = TABLE[what]
    raw = [json.dumps(item).encode() for item in items]
    assert chat_messages(None, raw, reasoning_key="think") == expected


def test_instructions_stand_before_all_others() -> None:
    """M2: in one message with those of the input."""
    messages = chat_messages(
        "i", [json.dumps(item).encode() for item in (S, U)], reasoning_key=None
    )
    assert messages == [{"role": "system", "content": "i\n\ns"}, USER]


def test_reasoning_is_sent_only_where_it_is_read() -> None:
    """Some servers refuse a key that they do not know."""
    items = [json.dumps(item).encode() for item in (U, R, A)]
    assert chat_messages(None, items, reasoning_key=None) == [USER, A]


@pytest.mark.parametrize("what", TABLE)
def test_the_messages_of_a_whole_history_begin_the_next_ones(what: str) -> None:
    """M9: whatever the user says next."""
    items, expected = TABLE[what]
    raw = [json.dumps(item).encode() for item in [*items, U, A, U]]
    assert chat_messages(None, raw, reasoning_key="think") == [*expected, USER, A, USER]
