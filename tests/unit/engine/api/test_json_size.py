"""`engine.api.json_size`: how many values a text holds, without making them."""

from __future__ import annotations

import json
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.api import json_size
from engine.api.json_size import has_more_values

_STRING = re.compile(rb'"(?:[^"\\]|\\.)*"', re.DOTALL)

_text = st.text('",[]{}:\\/ a\u20ac', max_size=8)
_values = st.recursive(
    st.none() | st.integers() | _text,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(_text, inner, max_size=4),
    max_leaves=30,
)


def made(value: object) -> int:
    """Count the containers that a decoder makes, and what they hold."""
    if isinstance(value, dict):
        return 1 + sum(made(one) for one in value.values())
    return 1 + sum(map(made, value)) if isinstance(value, list) else 1


@settings(max_examples=500, deadline=None, derandomize=True)
@given(_values, st.sampled_from([1, 2, 3, 7, 65_536]))
def test_what_stands_outside_of_strings_is_counted(value: object, piece: int) -> None:
    """X5: exactly, wherever the text is cut; and a decoder makes at most one value more."""
    body = json.dumps(value, ensure_ascii=False).encode()
    bare = _STRING.sub(b"", body)
    marks = sum(map(bare.count, (b",", b"[", b"{")))
    assert made(value) <= marks + 1
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(json_size, "_PIECE", piece)
        assert not has_more_values(body, marks)
        assert marks == 0 or has_more_values(body, marks - 1)


@pytest.mark.parametrize("broken", [b"\\\\", b'\\"', b'"a', b"]", b"x"])
def test_what_comes_before_a_mistake_counts(broken: bytes) -> None:
    """X5: a decoder makes it before it sees the mistake."""
    assert has_more_values(b"[" + b"[]," * 50 + broken, 100)
