"""What the demo model says, without any wire."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

from extproc.demo.answer import Answer, Call, Text, Thought, answer, limited, text, tokens
from extproc.demo.ask import Ask, Tool

WEATHER = Tool("get_weather", {"properties": {"city": {"type": "string"}}})
CLOCK = Tool("get_time", {"properties": {"zone": {"type": "string", "enum": ["CET"]}}})


def said(asked: Ask) -> str:
    (part,) = answer(asked).parts
    assert isinstance(part, Text)
    return "".join(part.deltas)


def called(asked: Ask) -> list[tuple[str, Any]]:
    parts = answer(asked).parts
    assert all(isinstance(part, Call) for part in parts)
    return [(p.name, json.loads("".join(p.deltas))) for p in parts if isinstance(p, Call)]


def test_it_echoes_the_last_user_message_and_counts_the_turns() -> None:
    """A continued conversation can be told from a new one by the answer alone."""
    assert said(Ask(user_texts=("hi",))) == "You said: hi (turn 1)"
    assert said(Ask(user_texts=("hi", "again"))) == "You said: again (turn 2)"


def test_a_long_message_is_echoed_in_part() -> None:
    """Nobody waits for a book to be read back token by token."""
    words = said(Ask(user_texts=("word " * 500,))).split()
    assert len(words) < 60
    assert "…" in words


def test_a_delta_is_a_token_and_deltas_keep_every_character() -> None:
    """Joined tokens are the text, white space included."""
    spaced = "  a b\n\nc  "
    assert "".join(tokens(spaced)) == spaced
    assert len(tokens("one two three")) == 3


def test_reasoning_comes_first_when_asked_for() -> None:
    """A thinking request gets a reasoning part before its text."""
    kinds = [type(part) for part in answer(Ask(user_texts=("hi",), think=True)).parts]
    assert kinds == [Thought, Text]


def test_a_tool_named_in_the_message_is_called_with_arguments_of_its_schema() -> None:
    """A string parameter gets a string, an enum one of its values."""
    asked = Ask(user_texts=("please use get_time",), tools=(WEATHER, CLOCK))
    assert called(asked) == [("get_time", {"zone": "CET"})]


def test_two_named_tools_are_called_in_the_order_of_the_message() -> None:
    """Parallel calls, one per tool."""
    asked = Ask(user_texts=("get_time, then get_weather",), tools=(WEATHER, CLOCK))
    assert [name for name, _ in called(asked)] == ["get_time", "get_weather"]


def test_without_parallel_calls_one_tool_is_called_and_the_other_on_the_next_turn() -> None:
    """parallel_tool_calls false makes a loop of turns."""
    first = Ask(user_texts=("get_time get_weather",), tools=(WEATHER, CLOCK), parallel=False)
    assert [name for name, _ in called(first)] == ["get_time"]
    then = Ask(
        user_texts=("get_time get_weather",),
        tools=(WEATHER, CLOCK),
        parallel=False,
        called=("get_time",),
        outputs=("noon",),
    )
    assert [name for name, _ in called(then)] == ["get_weather"]


def test_arguments_in_the_message_are_used_word_for_word() -> None:
    """A test or a user can say what the call shall carry."""
    asked = Ask(user_texts=('get_weather {"city":"Oslo"} now',), tools=(WEATHER,))
    (part,) = answer(asked).parts
    assert isinstance(part, Call)
    assert "".join(part.deltas) == '{"city":"Oslo"}'


def test_a_search_gets_the_words_of_the_user() -> None:
    """A query parameter is filled with the message, so that a real index has something to find."""
    search = Tool("file_search", {"properties": {"query": {"type": "string"}}})
    asked = Ask(user_texts=("file_search for whales",), tools=(search,))
    assert called(asked) == [("file_search", {"query": "file_search for whales"})]
    several = {"queries": {"type": "array", "items": {"type": "string"}}}
    asked = replace(asked, tools=(Tool("file_search", {"properties": several}),))
    assert called(asked) == [("file_search", {"queries": ["file_search for whales"]})]


def test_the_last_part_of_a_qualified_name_is_enough() -> None:
    """MCP tools carry their server's name, which no user writes."""
    asked = Ask(user_texts=("roll dice",), tools=(Tool("games__roll", {}),))
    assert called(asked) == [("games__roll", {})]


def test_outputs_are_quoted_once_all_named_tools_have_answered() -> None:
    """The loop ends, and the answer shows what came back."""
    asked = Ask(
        user_texts=("get_time",), tools=(CLOCK,), called=("get_time",), outputs=("noon", "dusk")
    )
    assert said(asked) == 'The tools returned: "noon"; "dusk" (turn 1)'


def test_a_required_choice_calls_a_tool_even_after_outputs() -> None:
    """A gateway that forgets to reset a forced choice never gets out: that must show."""
    asked = Ask(
        user_texts=("hi",),
        tools=(WEATHER, CLOCK),
        choice="required",
        called=("get_weather",),
        outputs=("rain",),
    )
    assert [name for name, _ in called(asked)] == ["get_weather"]


def test_a_named_choice_calls_that_tool_and_none_calls_nothing() -> None:
    """The choice wins over the message."""
    tools = (WEATHER, CLOCK)
    named = Ask(user_texts=("get_weather",), tools=tools, choice="named", forced="get_time")
    assert [name for name, _ in called(named)] == ["get_time"]
    assert said(Ask(user_texts=("get_weather",), tools=tools, choice="none")).startswith("You said")


def test_a_custom_tool_gets_the_message_as_its_input() -> None:
    """Free text in, no JSON."""
    asked = Ask(user_texts=("patch it",), tools=(Tool("patch", {}, custom=True),))
    (part,) = answer(asked).parts
    assert isinstance(part, Call)
    assert (part.custom, "".join(part.deltas)) == (True, "patch it")


def test_a_schema_is_answered_with_an_instance_and_json_object_with_an_object() -> None:
    """Structured output is valid JSON of the asked shape."""
    schema = {"type": "object", "properties": {"n": {"type": "integer", "minimum": 3}}}
    asked = Ask(user_texts=("hi",), format={"type": "json_schema", "schema": schema})
    assert json.loads(said(asked))["n"] >= 3
    free = json.loads(said(Ask(user_texts=("hi",), format={"type": "json_object"})))
    assert free == {"answer": "You said: hi (turn 1)"}


def test_images_are_counted() -> None:
    """The demo cannot see, but it can count."""
    assert said(Ask(user_texts=("look",), images=2)) == "You said: look I see 2 images. (turn 1)"


def test_a_token_limit_cuts_the_answer_at_that_many_tokens() -> None:
    """Reasoning counts too; what does not fit is not there at all."""
    cut = answer(Ask(user_texts=("hi",), think=True, max_tokens=3))
    assert cut.cut_short
    assert cut.output_tokens == 3
    assert [type(part) for part in cut.parts] == [Thought]


def test_an_answer_that_just_fits_is_not_cut() -> None:
    """Exactly the limit is complete."""
    full = Answer((text("a", " b"),))
    assert limited(full, 2) is full
    assert limited(full, 1).cut_short
