"""`engine.upstream.markup`: what may be the start of a call's markup waits; prose does not (R8)."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.upstream.markup import START_TOKENS, MarkupHold

PREFIXES = [token[:size] for token in START_TOKENS for size in range(1, len(token))]


@pytest.mark.parametrize("token", START_TOKENS)
def test_everything_from_a_start_token_on_is_held(token: str) -> None:
    """R8: however it is split; what stood before is released."""
    for at in range(len(token) + 1):
        hold = MarkupHold()
        shown = hold.feed("Before " + token[:at]) + hold.feed(token[at:]) + hold.feed(" behind")
        assert (shown, hold.found) == ("Before ", True)
        assert hold.size == len(token) + len(" behind")
        assert hold.release() == token + " behind"


def test_what_is_dropped_is_gone() -> None:
    """R8: the markup of calls that are known otherwise."""
    hold = MarkupHold()
    hold.feed("x<tool_call>{}")
    hold.drop()
    assert (hold.release(), hold.found, hold.size) == ("", False, 0)
    assert hold.feed("new") == "new"


def test_text_that_cannot_become_a_token_is_not_held() -> None:
    """No token waits longer than it has to."""
    hold = MarkupHold()
    assert hold.feed("a < b and <tool") == "a < b and "
    assert hold.feed("box>") == "<toolbox>"
    assert hold.tail == ""


def test_the_beginning_of_a_token_can_be_taken_as_text() -> None:
    """R8: where the text ends with it."""
    hold = MarkupHold()
    hold.feed("a <tool")
    assert (hold.take_tail(), hold.tail) == ("<tool", "")


@settings(max_examples=300, deadline=None, derandomize=True)
@given(
    st.lists(st.text("ab <[|", max_size=4) | st.sampled_from(PREFIXES), max_size=8),
    st.lists(st.integers(0, 80), max_size=8),
)
def test_prose_with_beginnings_of_tokens_is_released_whole_and_in_order(
    pieces: list[str], cuts: list[int]
) -> None:
    """R8: in any split, with at most a token's length held."""
    prose = "x".join(pieces)
    if any(token in prose for token in START_TOKENS):
        return
    hold = MarkupHold()
    shown = ""
    bounds = sorted({0, *(cut for cut in cuts if cut < len(prose)), len(prose)})
    for start, end in itertools.pairwise(bounds):
        shown += hold.feed(prose[start:end])
        assert prose[:end] == shown + hold.tail
        assert len(hold.tail) < max(map(len, START_TOKENS))
    assert not hold.found
    assert shown + hold.release() == prose
