"""Chunks: whole, within their size, overlapping as asked, the same each time."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from extproc.extraction.chunking import Bound, chunks_of
from extproc.extraction.wire import Cut

WORDS = st.lists(
    st.text(
        st.characters(exclude_categories=["Cs", "Cc", "Zs", "Zl", "Zp"]), min_size=1, max_size=12
    ),
    min_size=1,
    max_size=300,
)
GAPS = st.sampled_from([" ", "\n", "\n\n", ". ", "\n# ", "\n- "])
CUTS = st.tuples(st.integers(100, 400), st.integers(0, 50)).map(
    lambda given: Cut(given[0], given[0] * given[1] // 100)
)


def measured(text: str) -> int:
    """Return the number of a text's tokens: the least bound that holds."""
    high = 1
    while not Bound(high).holds(text):
        high *= 2
    low = high // 2
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if Bound(middle).holds(text) else (middle, high)
    return high


@st.composite
def texts(draw: st.DrawFn) -> str:
    """Words with all kinds of pauses between them."""
    words = draw(WORDS)
    return "".join(word + draw(GAPS) for word in words)


@settings(max_examples=60, deadline=None)
@given(texts(), CUTS, st.booleans())
@example("日本語🎉" * 400, Cut(100, 50), True)
@example("x" * 3000, Cut(100, 50), False)
@example("x" * 5000 + ", " + "日" * 9000, Cut(100, 50), False)
@example('{"a":1,"b":[2,3]},' * 1500 + "ends. " + "1234 " * 5000, Cut(200, 50), False)
@example("e" + "\u0301" * 3000, Cut(100, 50), False)
def test_every_word_is_in_some_chunk(text: str, cut: Cut, markup: bool) -> None:
    """No chunk is empty or over its size, each is of the text, in order, and nothing is lost between."""
    if not text.strip():
        return
    chunks = list(chunks_of(text, cut, markup=markup))
    covered = 0
    for chunk in chunks:
        assert chunk.strip()
        assert 0 < measured(chunk) <= cut.size
        start = _place(text, chunk, covered)
        covered = max(covered, start + len(chunk))
    assert not text[covered:].strip()
    assert chunks == list(chunks_of(text, cut, markup=markup))


def _place(text: str, chunk: str, covered: int) -> int:
    """Return where a chunk begins: in what is covered or right behind it, white space apart."""
    behind = covered + len(text[covered:]) - len(text[covered:].lstrip())
    start = text.rfind(chunk, 0, behind + len(chunk))
    assert start >= 0, "the chunk is not of the text, or something is lost before it"
    return start


@pytest.mark.parametrize(("size", "overlap"), [(100, 0), (100, 50), (800, 400), (200, 20)])
def test_chunks_overlap_as_asked(size: int, overlap: int) -> None:
    """At most so many tokens, and most of them where words are short."""
    text = " ".join(f"word{number}." for number in range(3000))
    chunks = list(chunks_of(text, Cut(size, overlap), markup=False))
    assert len(chunks) > 5
    for one, following in pairwise(chunks):
        shared = next(
            (following[:k] for k in range(len(following), 0, -1) if one.endswith(following[:k])), ""
        )
        tokens = measured(shared) if shared else 0
        assert tokens <= overlap
        assert tokens >= overlap - 10


def test_tokens_are_those_of_o200k() -> None:
    """Exactly."""
    assert measured("hello world") == 2
    assert measured(" ".join(["hello"] * 500)) == 500


def test_what_has_no_pause_is_cut_between_words() -> None:
    """X5: minified JSON of any length; no word of it is cut, and nothing but its overlap is there twice."""
    records = [f'{{"number":{number},"name":"name{number}"}}' for number in range(2000)]
    text = "[" + ",".join(records) + "]"
    chunks = list(chunks_of(text, Cut(100, 0), markup=False))
    assert "".join(chunks) == text
    assert all(
        not (before[-1].isalnum() and behind[0].isalnum()) for before, behind in pairwise(chunks)
    )


def test_chunks_begin_where_sections_do() -> None:
    """Markdown is cut at its headings, where that fits."""
    text = "\n\n".join(f"# Part {number}\n\n{'word ' * 70}" for number in range(5))
    chunks = list(chunks_of(text, Cut(100, 0), markup=True))
    assert all(chunk.startswith("# Part") for chunk in chunks)
