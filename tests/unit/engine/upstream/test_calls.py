"""`engine.upstream.calls`: calls as streams announce, close, double and forget them."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.response.inputs import ArgumentsDelta, Content, ItemStarted
from engine.upstream.calls import CallQueue

Told = list[tuple[str, str]]


def told(content: list[Content]) -> Told:
    """Return the calls that were let through, as (name, arguments); raises if they interleave."""
    calls: Told = []
    for piece in content:
        match piece:
            case ItemStarted(kind, name):
                assert kind == "function_call"
                calls.append((name, ""))
            case ArgumentsDelta(text):
                assert text
                calls[-1] = (calls[-1][0], calls[-1][1] + text)
            case _:
                raise AssertionError(f"{piece} is not of a call")
    return calls


def queue(allowed: frozenset[str] | None = None, most: int | None = None) -> CallQueue:
    return CallQueue(allowed, most)


def test_arguments_pass_as_they_come() -> None:
    """Nothing is held of a call that is the only one."""
    calls = queue()
    assert calls.announce("a", "f", "") == []
    assert calls.arguments("a", '{"x"') == [
        ItemStarted("function_call", "f"),
        ArgumentsDelta('{"x"'),
    ]
    assert calls.arguments("a", ":1}") == [ArgumentsDelta(":1}")]
    assert calls.end("a", '{"x":1}', is_call=True) == []
    assert calls.settle([("f", '{"x":1}')]) == []
    assert calls.held < 300


def test_a_second_call_waits_for_the_first() -> None:
    """Items do not interleave."""
    calls = queue()
    calls.announce("a", "f", "")
    calls.announce("b", "g", "")
    content = calls.arguments("a", "{")
    content += calls.arguments("b", '{"b":')
    content += calls.arguments("a", " ")
    assert told(content) == [("f", "{ ")]
    content += calls.arguments("a", "}")
    assert told(content) == [("f", "{ }"), ("g", '{"b":')]
    content += calls.arguments("b", "2}")
    content += calls.end("a", None, is_call=True)
    content += calls.end("b", '{"b":2}', is_call=True)
    assert told(content + calls.settle(None)) == [("f", "{ }"), ("g", '{"b":2}')]


def test_a_call_without_arguments_is_certain_when_it_is_closed_as_one() -> None:
    """The item is made by its end."""
    calls = queue()
    calls.announce("a", "ping", "")
    assert told(calls.end("a", "", is_call=True)) == [("ping", "")]


def test_a_call_that_was_closed_as_a_message_never_was() -> None:
    """vLLM 0.18 announces every call twice and closes the first as a message."""
    calls = queue()
    calls.announce("bogus", "f", "")
    assert calls.end("bogus", None, is_call=False) == []
    calls.announce("real", "f", "")
    content = calls.arguments("real", "{}")
    content += calls.end("real", '{}{"tz":1}', is_call=True)
    assert told(content + calls.settle([("f", "{}")])) == [("f", "{}")]


def test_the_end_brings_what_the_deltas_left_out() -> None:
    """All of it, or its tail; never a second document behind the first."""
    calls = queue()
    calls.announce("a", "f", "")
    content = calls.arguments("a", '{"x":')
    content += calls.end("a", '{"x":1}', is_call=True)
    assert told(content) == [("f", '{"x":1}')]

    calls = queue()
    calls.announce("a", "f", "")
    assert told(calls.end("a", '{"x":1}', is_call=True)) == [("f", '{"x":1}')]


def test_the_end_of_a_waiting_call_brings_what_the_deltas_left_out() -> None:
    """The same for a call that was not let through yet."""
    calls = queue()
    for key in ("a", "b"):
        calls.announce(key, key, "")
    content = calls.arguments("a", "{")
    calls.arguments("b", '{"x":')
    calls.end("b", '{"x":1}', is_call=True)
    content += calls.end("a", "{}", is_call=True)
    assert told(content) == [("a", "{}"), ("b", '{"x":1}')]


def test_the_terminal_object_completes_the_call_that_is_open() -> None:
    """R7: servers that never close a call; the arguments are JSON in the end."""
    calls = queue()
    calls.announce("a", "f", "")
    calls.announce("b", "f", "")
    content = calls.arguments("a", '{"city":"Paris"}')
    content += calls.end("a", None, is_call=True)
    content += calls.arguments("b", '{"city":')
    content += calls.settle([("f", '{"city":"Paris"}'), ("f", '{"city":"Rome"}')])
    assert told(content) == [("f", '{"city":"Paris"}'), ("f", '{"city":"Rome"}')]


def test_a_call_that_was_interrupted_gets_nothing_more() -> None:
    """Its item is closed: what follows belongs to another."""
    calls = queue()
    calls.announce("a", "f", "")
    calls.arguments("a", '{"x":')
    assert calls.running
    calls.interrupt()
    assert not calls.running
    assert calls.arguments("a", "1}") == []
    assert calls.settle([("f", '{"x":1}')]) == []


def test_what_the_stream_never_told_comes_from_the_terminal_object() -> None:
    """R8: calls that were streamed as text, or not at all."""
    assert told(queue().settle([("f", '{"a":1}'), ("g", "")])) == [("f", '{"a":1}'), ("g", "{}")]


def test_a_terminal_object_without_output_leaves_the_announced_calls() -> None:
    """Then what was announced is believed."""
    calls = queue()
    calls.announce("a", "ping", "")
    assert told(calls.settle(None)) == [("ping", "{}")]


def test_ids_that_repeat_mean_the_newest_call() -> None:
    """Servers number all items the same."""
    calls = queue()
    content: list[Content] = []
    for name in ("f", "g"):
        content += calls.announce("same", name, "")
        content += calls.arguments("same", "{}")
        content += calls.end("same", "{}", is_call=True)
    assert told(content) == [("f", "{}"), ("g", "{}")]


def test_events_of_unknown_calls_are_passed_over() -> None:
    """Nothing is announced, so nothing is made."""
    calls = queue()
    assert calls.arguments("x", "{}") == []
    assert calls.end("x", "{}", is_call=True) == []


@pytest.mark.parametrize("streamed", [True, False])
def test_calls_that_are_not_allowed_never_pass(streamed: bool) -> None:
    """T4: by name and by number, streamed or from the terminal object."""
    for calls, expected in (
        (queue(allowed=frozenset({"g"})), ["g"]),
        (queue(most=1), ["f"]),
        (queue(most=0), []),
    ):
        content: list[Content] = []
        if streamed:
            for name in ("f", "g"):
                content += calls.announce(name, name, "")
                content += calls.arguments(name, "{}")
                content += calls.end(name, "{}", is_call=True)
        content += calls.settle([("f", "{}"), ("g", "{}")])
        assert [name for name, _ in told(content)] == expected


def test_joined_arguments_are_cut_apart() -> None:
    """R7: what stands behind a whole object is no part of it; it is a call only where nobody knows."""
    for terminal, expected in (
        (None, [("f", '{"a":1}'), ("f", '{"b":2}')]),
        ([("f", '{"a":1}'), ("g", '{"b":2}')], [("f", '{"a":1}'), ("g", '{"b":2}')]),
        ([("f", '{"a":1}{"b":2}')], [("f", '{"a":1}'), ("f", '{"b":2}')]),
    ):
        for split in ('{"a":1}{"b":2}', '{"a":1}|{"b"|:2}', '{"a":|1}{"b"|:2}|{"a":1}'):
            calls = queue()
            content = calls.announce("a", "f", "")
            for piece in split.split("|"):
                content += calls.arguments("a", piece)
            assert told(content) == [("f", '{"a":1}')]
            assert told(content + calls.settle(terminal)) == expected


def test_certain_calls_keep_their_order() -> None:
    """R5: one without arguments is not overtaken by the next."""
    calls = queue()
    content = calls.announce("a", "ping", "", certain=True)
    assert content == [ItemStarted("function_call", "ping")]
    content += calls.announce("b", "f", '{"x"', certain=True)
    content += calls.announce("c", "g", "", certain=True)
    content += calls.arguments("c", "{}")
    content += calls.arguments("b", ":1}")
    assert told(content + calls.settle(None)) == [("ping", ""), ("f", '{"x":1}'), ("g", "{}")]


def test_whole_arguments_let_the_next_call_through() -> None:
    """No waiting for an end that servers forget."""
    calls = queue()
    content = calls.announce("a", "f", "{}", certain=True)
    content += calls.announce("b", "g", '{"x":', certain=True)
    assert told(content) == [("f", "{}"), ("g", '{"x":')]


# -- any order ---------------------------------------------------------------------------------------

KEYS = st.sampled_from("abcd")
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("announce"), KEYS, st.sampled_from("fg"), st.sampled_from(["", "{}"])),
        st.tuples(st.just("arguments"), KEYS, st.sampled_from(["{", '"x":', "1", "}", "{}", ""])),
        st.tuples(
            st.just("end"), KEYS, st.sampled_from([None, "", "{}", '{"x":1}']), st.booleans()
        ),
        st.tuples(st.just("interrupt")),
    ),
    max_size=25,
)
TERMINAL = st.none() | st.lists(
    st.tuples(st.sampled_from("fgh"), st.sampled_from(["", "{}", '{"x":1}', '{"x":2}'])), max_size=5
)


def step(calls: CallQueue, move: tuple[Any, ...]) -> list[Content]:
    match move:
        case ("announce", key, name, arguments):
            return calls.announce(key, name, arguments)
        case ("arguments", key, text):
            return calls.arguments(key, text)
        case ("end", key, arguments, is_call):
            return calls.end(key, arguments, is_call=is_call)
        case _:
            calls.interrupt()
            return []


@settings(max_examples=400, deadline=None, derandomize=True)
@given(STEPS, TERMINAL)
def test_no_order_loses_or_doubles_a_terminal_call(
    moves: list[tuple[Any, ...]], terminal: Told | None
) -> None:
    """At least every terminal call, by name; more of a name only where the stream had more of it."""
    calls = queue()
    streamed: list[Content] = []
    for move in moves:
        content = step(calls, move)
        # After an item of another kind, the first thing that comes is a new call.
        if streamed and streamed[-1] is INTERRUPTED and content:
            assert isinstance(content[0], ItemStarted)
        streamed += content
        if move[0] == "interrupt":
            streamed.append(INTERRUPTED)
    before = told([piece for piece in streamed if piece is not INTERRUPTED])
    after = told([*(p for p in streamed if p is not INTERRUPTED), *calls.settle(terminal)])

    assert [name for name, _ in after[: len(before)]] == [name for name, _ in before]
    passed = Counter(name for name, _ in after)
    wanted = Counter(name for name, _ in terminal or [])
    assert not wanted - passed, "a terminal call was lost"
    made = Counter(move[2] for move in moves if move[0] == "announce")
    if terminal is None:
        # Then joined arguments are calls of their own.
        made.update(dict.fromkeys("fg", sum(move[0] in ("arguments", "end") for move in moves)))
    for name, count in passed.items():
        assert count <= max(wanted[name], made[name]), "a call was doubled"


# Stands between contents where an item of another kind began.
INTERRUPTED: Any = object()


WELL_FORMED = st.lists(
    st.tuples(st.sampled_from(["f", "g"]), st.dictionaries(st.text(max_size=3), st.integers())),
    max_size=4,
)


@settings(max_examples=200, deadline=None, derandomize=True)
@given(WELL_FORMED, st.data())
def test_interleaved_calls_come_out_one_after_the_other(
    wanted: list[tuple[str, dict[str, int]]], data: st.DataObject
) -> None:
    """R7: deltas of parallel calls in any order; each call keeps its own arguments, whole."""
    calls = queue()
    content: list[Content] = []
    left = {key: json.dumps(arguments) for key, (_, arguments) in enumerate(wanted)}
    for key, (name, _) in enumerate(wanted):
        content += calls.announce(key, name, "")
    while left:
        key = data.draw(st.sampled_from(sorted(left)))
        size = data.draw(st.integers(1, 5))
        content += calls.arguments(key, left[key][:size])
        left[key] = left[key][size:]
        if not left[key]:
            del left[key]
            content += calls.end(key, None, is_call=True)
    terminal = [(name, json.dumps(arguments)) for name, arguments in wanted]
    content += calls.settle(terminal)

    assert sorted(told(content)) == sorted(terminal)
