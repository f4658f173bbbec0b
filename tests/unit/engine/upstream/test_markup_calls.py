"""`engine.upstream.markup_calls`: complete markup becomes calls, anything else stays text (R8)."""

from __future__ import annotations

import json
import subprocess
import sys
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.upstream.markup_calls import Call, Piece, Rest, read_calls
from tests.support.markup_forms import BARE_FORMS, FORMS, PARIS, TOOLS, Calls

ALL = {**FORMS, **BARE_FORMS}


def calls_in(pieces: list[Piece]) -> Calls:
    return [(p.name, json.loads(p.arguments)) for p in pieces if isinstance(p, Call)]


@pytest.mark.parametrize("form", ALL)
def test_every_form_is_read(form: str) -> None:
    """R7, R8: names, and arguments as the schema has them; nothing is left over."""
    text, expected = ALL[form]
    pieces = read_calls(text, TOOLS)
    assert calls_in(pieces) == expected
    assert len(pieces) == len(expected)


@pytest.mark.parametrize("form", FORMS)
def test_the_text_around_calls_is_kept(form: str) -> None:
    """R8: before and behind, in order."""
    text, expected = FORMS[form]
    pieces = read_calls(text + ("\n" if "not closed" in form else " Done."), TOOLS)
    assert calls_in(pieces) == expected
    assert [p for p in pieces if isinstance(p, str)] == ([] if "not closed" in form else ["Done."])


@pytest.mark.parametrize("form", ALL)
def test_markup_that_breaks_off_is_no_call(form: str) -> None:
    """R8: at no place; what is whole before it is."""
    text, expected = ALL[form]
    for size in range(len(text)):
        pieces = read_calls(text[:size], TOOLS)
        assert calls_in(pieces) == expected[: len(calls_in(pieces))]


def test_the_end_that_breaks_off_is_told_apart() -> None:
    """R8: a turn that was cut shows no markup."""
    text, expected = FORMS["hermes"]
    pieces = read_calls(text + '<tool_call>\n{"name": "get_t', TOOLS)
    assert calls_in(pieces) == expected
    assert pieces[-1] == Rest('<tool_call>\n{"name": "get_t')


@pytest.mark.parametrize("form", ALL)
def test_functions_that_were_not_declared_are_text(form: str) -> None:
    """R8: an example in an answer about tools is no call."""
    text, _ = ALL[form]
    assert calls_in(read_calls(text, TOOLS[:0])) == []
    assert "".join(p.text if isinstance(p, Rest) else str(p) for p in read_calls(text, ())) == text


@pytest.mark.parametrize("form", FORMS)
def test_any_function_may_be_called_where_nobody_said_which(form: str) -> None:
    """R8, T7: values without a schema are text."""
    text, expected = FORMS[form]
    names = [call.name for call in read_calls(text, None) if isinstance(call, Call)]
    assert names == [name for name, _ in expected]


@pytest.mark.parametrize(
    "text",
    [
        '<tool_call>{"name": "ping", "arguments": 3}</tool_call>',
        '<tool_call>{"name": "ping", "arguments": "x"}</tool_call>',
        '<tool_call>{"name": 3}</tool_call>',
        '<tool_call>{"name": "ping", "arguments": {"x": NaN}}</tool_call>',
        '<tool_call>{"name": "ping"} and more</tool_call>',
        "<tool_call>[3]</tool_call>",
        "<tool_call>" + "[" * 900 + "]" * 900 + "</tool_call>",
        "<function=ping>" + '{"a":' * 900 + "3" + "}" * 900 + "<",
        "[" * 900 + "]" * 900,
        "<tool_call>ping<arg_key>a</arg_key>b<arg_value>c</arg_value></tool_call>",
        "<tool_call>ping<arg_key>a</arg_key><arg_value>c</tool_call>",
        '<tool_call>{"' + '":{"' * 50_000,
        "<function=ping>and so</function>",
        '<|tool_calls_section_begin|>"',
        "[TOOL_CALLS]ping",
        '[TOOL_CALLS][{"name": "ping",}]',
    ],
)
def test_what_is_malformed_is_text(text: str) -> None:
    """R8: nothing is guessed."""
    assert calls_in(read_calls(text, TOOLS)) == []


def test_half_an_emoji_in_arguments_is_replaced() -> None:
    """No UTF-8 can carry it, and it must not break the run."""
    [call] = read_calls(r'<function=ping>{"a": "\ud83d"}</function>', TOOLS)
    assert isinstance(call, Call)
    assert call.arguments.encode() == b'{"a": "?"}'


@pytest.mark.parametrize(
    "unit", ["<tool_call>", '<tool_call>{"', "<function=ping><parameter=a>", "[TOOL_CALLS]ping "]
)
def test_a_long_text_of_nothing_but_openers_is_read_soon(unit: str) -> None:
    """X5: the work does not grow with the square of the text."""
    begun = time.process_time()
    read_calls(unit * 20_000, TOOLS)
    assert time.process_time() - begun < 5


_READ_ALOUD = """
import sys
from engine.upstream.markup_calls import read_calls
from tests.support.markup_forms import TOOLS
print(len(read_calls(sys.stdin.read(), TOOLS)))
"""


@pytest.mark.parametrize(
    "text",
    [
        "<tool_call>f<arg_key>a" * 256 + "</arg_key><arg_value>" * 20_000,
        "<tool_call>f<arg_key>a" + "</arg_key><arg_value>" * 200_000,
        "<tool_call>[" * 256 + "{}" * 400_000 + "]" * 256,
    ],
)
def test_no_text_costs_more_work_than_its_length_is_worth(text: str) -> None:
    """X5: a text of a model, or one that a client had it repeat, stops no worker.

    Read in a process of its own: where the work grows with the square, minutes do not do.
    """
    done = subprocess.run(
        [sys.executable, "-c", _READ_ALOUD],
        input=text,
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert int(done.stdout) >= 1


def test_a_call_behind_much_that_is_none_is_read() -> None:
    """R8: prose about markup wastes what looking at it costs, and that is not much."""
    prose = 'Say <tool_call>{"name": ...} or <function=name> or [TOOL_CALLS] and so on. ' * 40
    pieces = read_calls(prose + '<tool_call>{"name": "ping"}</tool_call>', TOOLS)
    assert pieces == [prose.rstrip(" ") + " ", Call("ping", "{}")]


@settings(max_examples=300, deadline=None, derandomize=True)
@given(
    st.lists(
        st.sampled_from([text for text, _ in ALL.values()])
        | st.text('<>[]{}"name:ping \n', max_size=10),
        max_size=5,
    ).map("".join)
)
def test_no_text_breaks_the_reader_or_is_lost(text: str) -> None:
    """R8: whatever is no call comes back, but for the white space around calls."""
    pieces = read_calls(text, TOOLS)
    for piece in pieces:
        assert not isinstance(piece, Call) or isinstance(json.loads(piece.arguments), dict)
    if not calls_in(pieces):
        back = "".join(p if isinstance(p, str) else getattr(p, "text", "") for p in pieces)
        assert back.split() == text.split()


def test_the_example_is_what_it_says() -> None:
    """The table of forms holds what the tests above take it for."""
    assert PARIS == [("get_weather", {"city": "Paris"})]
