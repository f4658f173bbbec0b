"""`engine.upstream.markup`: what may be the start of a call's markup waits; prose does not (R8)."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.upstream.markup import MarkupHold
from tests.support.markup_forms import BARE_FORMS, BEGINNINGS, FORMS, TOOLS, is_prose

NAMES = [tool.name for tool in TOOLS]
# Longer than any start of a call can get; most of it would be white space.
BOUND = 1000


@pytest.mark.parametrize("form", FORMS)
def test_everything_from_the_start_of_a_call_on_is_held(form: str) -> None:
    """R8: however it is split; what stood before is released, and nothing of the call."""
    markup, _ = FORMS[form]
    for at in range(len(markup) + 1):
        hold = MarkupHold()
        shown = hold.feed("Before " + markup[:at]) + hold.feed(markup[at:]) + hold.feed(" behind")
        assert (shown, hold.found) == ("Before ", True)
        assert hold.size == len(markup) + len(" behind")
        assert hold.release() == markup + " behind"


@pytest.mark.parametrize("form", BARE_FORMS)
def test_a_message_that_is_a_call_without_markup_is_held(form: str) -> None:
    """R8: in any split, where such a function was declared; not in the middle of a message."""
    text, _ = BARE_FORMS[form]
    for at in range(len(text) + 1):
        hold = MarkupHold(NAMES)
        assert (hold.feed(text[:at]) + hold.feed(text[at:]), hold.found) == ("", True)
    for names, before in (((), ""), (("other",), ""), (NAMES, "So: ")):
        hold = MarkupHold(names)
        shown = hold.feed(before + text.replace(">>>", "")) + hold.release()
        assert (shown, hold.found) == (before + text.replace(">>>", ""), False)


def test_each_message_may_be_a_call() -> None:
    """R8: the second too."""
    text, _ = BARE_FORMS["llama, bare"]
    hold = MarkupHold(NAMES)
    assert hold.feed("prose ") + hold.feed(text) == "prose " + text
    hold.begin()
    assert (hold.feed(text), hold.found) == ("", True)


def test_what_is_dropped_is_gone() -> None:
    """R8: the markup of calls that are known otherwise."""
    hold = MarkupHold()
    hold.feed('x<tool_call>{"name"')
    hold.drop()
    assert (hold.release(), hold.found, hold.size) == ("", False, 0)
    assert hold.feed("new") == "new"


@pytest.mark.parametrize(
    "prose",
    [
        "<toolbox>", "Write <tool_call> first.", "`<tool_call>`: {", "a < b and c > d",
        "<function=>", "<function=f(x)> is it", "[TOOL_CALLS] is a token", "[link](x)", ">>> import os\n",
        ">>> f\nx", "<tool_calls> is not", "<tool_call>" + " " * 300 + "{", "<tool_call>" + "x" * 300,
        '{"name": "someone", "age": 3}', '{"city": "Paris"}', "get_weather is a function", "get_weather\n",
    ],
)  # fmt: skip
def test_prose_that_only_looks_like_markup_is_released_before_its_end(prose: str) -> None:
    """R8: as soon as it cannot become a call; nobody waits for the end of an answer about markup."""
    for at in range(len(prose) + 1):
        hold = MarkupHold(NAMES)
        assert hold.feed(prose[:at]) + hold.feed(prose[at:]) + hold.feed(" and so on") == (
            prose + " and so on"
        )


def test_the_beginning_of_a_call_can_be_taken_as_text() -> None:
    """R8: where the text ends with it."""
    hold = MarkupHold()
    hold.feed("a <tool")
    assert (hold.take_tail(), hold.tail) == ("<tool", "")


@settings(max_examples=500, deadline=None, derandomize=True)
@given(
    st.lists(st.text("ab <[|{\n", max_size=4) | st.sampled_from(BEGINNINGS), max_size=8),
    st.lists(st.integers(0, 80), max_size=8),
    st.booleans(),
)
def test_prose_with_beginnings_of_calls_is_released_whole_and_in_order(
    pieces: list[str], cuts: list[int], names: bool
) -> None:
    """R8: any prefix of any markup, in any split, with a bounded part of it held."""
    prose = "x".join(pieces)
    if not is_prose(prose):
        return
    hold = MarkupHold(NAMES if names else ())
    shown = ""
    bounds = sorted({0, *(cut for cut in cuts if cut < len(prose)), len(prose)})
    for start, end in itertools.pairwise(bounds):
        shown += hold.feed(prose[start:end])
        assert prose[:end] == shown + hold.tail
        assert len(hold.tail) < BOUND
    assert not hold.found
    assert shown + hold.release() == prose
