"""`storage.words`: the words that every index is given."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from storage.words import asked_words, joined, words_of


@given(st.text())
def test_words_are_plain_whatever_the_text_is(text: str) -> None:
    """No analyzer takes one apart, none is syntax, and all of a text that is asked for are in it."""
    words = words_of(text)
    assert all(re.fullmatch(r"[a-z0-9]{1,40}", word) for word in words)
    assert set(asked_words(text, at_most=10_000)) <= set(words)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Straße", "STRASSE"),
        ("ﬁne", "fine"),
        ("Ａ１", "a1"),
        ("e\u0301te\u0301", "été"),
        ("Ёлка", "ёлка"),
        ("ΣΊΣΥΦΟΣ", "σίσυφος"),
    ],
)
def test_spellings_of_one_word_are_one(one: str, other: str) -> None:
    """Case, width, ligatures and how accents are written make no difference."""
    assert words_of(one) == words_of(other)


def test_a_word_keeps_its_signs() -> None:
    """Vowels that stand above or below a letter do not end a word."""
    assert len(words_of("हिन्दी भाषा")) == 2
    assert len(words_of("שָׁלוֹם")) == 1


def test_scripts_without_blanks_are_found_by_their_pairs() -> None:
    """Any part of two letters is found; a query of pairs does not ask for single letters."""
    text = words_of("東京都に住む")
    assert set(asked_words("京都")) <= set(text)
    assert len(asked_words("京都")) == 1
    assert set(asked_words("都")) <= set(text)
    assert not set(asked_words("都京")) & set(text)


def test_a_query_has_each_word_once_and_not_too_many() -> None:
    """What is asked costs time for each word."""
    assert asked_words("to be or not to be") == ["to", "be", "or", "not"]
    assert asked_words(" ".join(f"w{number}" for number in range(99)), at_most=3) == [
        "w0",
        "w1",
        "w2",
    ]


def test_no_word_is_cut_where_there_is_no_more_room() -> None:
    """A field has a size: the last word that fits, fits whole."""
    words = ["one", "two", "three"]
    assert joined(words, 13) == "one two three"
    for size in range(7, 13):
        assert joined(words, size) == "one two"
    assert joined(words, 2) == ""
