"""Placeholders and their values."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.context.template import merge, placeholders, render

IMAGE: dict[str, object] = {"type": "input_image", "image_url": "https://x/1.png"}


def test_text_gives_way_to_values() -> None:
    """Also twice, with spaces between the braces; what is no name stays."""
    text = "{{a}} and {{ a }} in {{b}}: {{ 1 }} {{}} {a} {{a.b}}"
    assert render(text, {"a": "x", "b": ""}) == "x and x in : {{ 1 }} {{}} {a} {{a.b}}"


@given(st.text())
def test_a_value_is_never_read_again(value: str) -> None:
    """What a value says is text, also where it looks like a placeholder."""
    assert render("<{{a}}>", {"a": value + "{{b}}", "b": "secret"}) == f"<{value}{{{{b}}}}>"


def test_messages_keep_their_form() -> None:
    """Strings stay strings, parts parts; what has no text is not touched."""
    messages = [
        {"role": "developer", "content": "Speak {{tongue}}."},
        {"role": "user", "content": [{"type": "input_text", "text": "{{a}}!"}, IMAGE]},
        {"role": "assistant", "content": "So {{a}}."},
        {"role": "assistant", "content": [{"type": "output_text", "text": "{{a}}"}]},
    ]
    assert render(messages, {"tongue": "Latin", "a": "ave"}) == [
        {"role": "developer", "content": "Speak Latin."},
        {"role": "user", "content": [{"type": "input_text", "text": "ave!"}, IMAGE]},
        {"role": "assistant", "content": "So ave."},
        {"role": "assistant", "content": [{"type": "output_text", "text": "ave"}]},
    ]


def test_an_image_cuts_the_text_it_stands_in() -> None:
    """In the order of the text; nothing empty is left over."""
    messages = [{"role": "user", "content": text} for text in ("Look: {{i}} or {{b}}", "{{i}}")]
    before = {"type": "input_text", "text": "Look: "}
    after = {"type": "input_text", "text": " or c"}
    assert render(messages, {"i": IMAGE, "b": "c"}) == [
        {"role": "user", "content": [before, IMAGE, after]},
        {"role": "user", "content": [IMAGE]},
    ]


def test_every_placeholder_is_found_where_it_stands() -> None:
    """With whether nothing but text fits there."""
    messages = [
        {"role": "user", "content": "{{a}}"},
        {"role": "user", "content": [IMAGE, {"type": "input_text", "text": "{{b}}"}]},
        {"role": "assistant", "content": "{{c}}"},
        "no message",
    ]
    assert list(placeholders(messages)) == [
        ("a", "instructions[0].content", False),
        ("b", "instructions[1].content[1].text", False),
        ("c", "instructions[2].content", True),
    ]
    assert list(placeholders("{{a}}")) == [("a", "instructions", True)]
    assert list(placeholders(None)) == []


@pytest.mark.parametrize(
    ("template", "given", "merged"),
    [
        ({"model": "a", "top_p": 1}, {"model": "b"}, {"model": "b", "top_p": 1}),
        ({"model": "a"}, {"model": None}, {"model": "a"}),
        ({"tools": [1]}, {"tools": []}, {"tools": []}),
        (
            {"text": {"format": {"type": "text"}}},
            {"text": {"verbosity": "low", "format": None}},
            {"text": {"format": {"type": "text"}, "verbosity": "low"}},
        ),
        ({"reasoning": {"a": 1}}, {"reasoning": {"a": 2}}, {"reasoning": {"a": 2}}),
        ({"metadata": {"a": "1"}}, {"metadata": {"b": "2"}}, {"metadata": {"a": "1", "b": "2"}}),
    ],
)
def test_a_request_has_the_last_word(
    template: dict[str, object], given: dict[str, object], merged: dict[str, object]
) -> None:
    """Objects are joined key by key (the Agents SDK sends one key of them); null is absent."""
    assert merge(template, given) == merged
