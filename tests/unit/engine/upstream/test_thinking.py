"""`engine.upstream.thinking`: a thought in the text of a server without a reasoning parser."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.upstream.thinking import ThinkSplit


def split(text: str, size: int) -> tuple[str, str]:
    """Return thought and text; raises if text came before thought."""
    parts = ThinkSplit()
    shown = [parts.feed(text[at : at + size]) for at in range(0, len(text), size)] + [parts.end()]
    first_text = next((at for at, (_, said) in enumerate(shown) if said), len(shown))
    assert not any(thought for thought, _ in shown[first_text + 1 :])
    return "".join(thought for thought, _ in shown), "".join(said for _, said in shown)


@pytest.mark.parametrize(
    ("text", "thought", "said"),
    [
        ("<think>\nhm\n</think>\n\nHi", "hm", "Hi"),
        ("  <think>hm</think>Hi <think>x</think>", "hm", "Hi <think>x</think>"),
        ("<thinking>a </thin b</thinking>c", "a </thin b", "c"),
        ("[THINK]a[/THINK]b", "a", "b"),
        ("<think></think>Hi", "", "Hi"),
        ("<think>never closed </thi", "never closed </thi", ""),
        ("Hi <think>x</think>", "", "Hi <think>x</think>"),
        ("<think>a" + "\n" * 300 + "b</think>c", "a" + "\n" * 300 + "b", "c"),
        ("<thin", "", "<thin"),
        ("<thinker>", "", "<thinker>"),
        ("  Hi", "", "  Hi"),
        ("", "", ""),
    ],
)
def test_a_thought_is_told_from_the_text(text: str, thought: str, said: str) -> None:
    """In any split; only at the beginning is there one, and what is none is delivered whole (R8)."""
    for size in range(1, len(text) + 2):
        assert split(text, size) == (thought, said)


@settings(max_examples=200, deadline=None, derandomize=True)
@given(st.text("<>/think \nx", max_size=30), st.integers(1, 9))
def test_text_without_a_thought_is_delivered_whole(text: str, size: int) -> None:
    """R8: in order, in any split."""
    if not text.lstrip().startswith("<think"):
        assert split(text, size) == ("", text)
