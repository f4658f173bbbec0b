"""Cuts a text into chunks of so many tokens, where it pauses: at headings, paragraphs, sentences.

The tokens are those of o200k, whose vocabulary comes with the library: nothing is fetched. The same text
gives the same chunks, always: what was ingested before a crash is found again after it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from semantic_text_splitter import MarkdownSplitter, TextSplitter

from extproc.extraction.wire import Cut

_MODEL = "gpt-4o"
# One token.
_WORD = " a"


def warm() -> None:
    """Load the vocabulary, once for all processes that are forked from this one."""
    TextSplitter.from_tiktoken_model(_MODEL, 1)


def chunks_of(text: str, cut: Cut, *, markup: bool) -> Iterator[tuple[str, int]]:
    """Yield each chunk with the number of its tokens, none of them empty; `markup` is for Markdown."""
    kind = MarkdownSplitter if markup else TextSplitter
    splitter = kind.from_tiktoken_model(_MODEL, cut.size, overlap=cut.overlap)
    counts = TokenCounts()
    for chunk in splitter.chunks(text):
        if chunk.strip():
            yield from _within(chunk, cut.size, counts)


def _within(chunk: str, most: int, counts: TokenCounts) -> Iterator[tuple[str, int]]:
    """Yield a chunk, or its halves where it is one character with a thousand accents: it is not cut else."""
    tokens = counts.of(chunk)
    if tokens <= most or len(chunk) < 2:
        yield chunk, tokens
        return
    middle = len(chunk) // 2
    for half in (chunk[:middle], chunk[middle:]):
        if half.strip():
            yield from _within(half, most, counts)


class TokenCounts:
    """Counts tokens, which the library does not tell: a size is the smallest of which a text is one chunk.

    That costs far more than cutting. So words are counted, each once: no token of o200k reaches from
    something that is not white space to a space, or from a newline to a letter or digit.
    """

    _BOUNDARY = re.compile(r"(?<=\S)(?= )|(?<=\n)(?=[^\W_])")
    # Longer pieces hardly ever come again.
    _WORD = 40
    _MOST_WORDS = 200_000

    def __init__(self) -> None:
        self._words: dict[str, int] = {}

    def of(self, text: str) -> int:
        """Return the number of a text's tokens."""
        return sum(map(self._word, self._BOUNDARY.split(text)))

    def _word(self, word: str) -> int:
        known = self._words.get(word)
        if known is None:
            known = measured(word)
            if len(word) <= self._WORD and len(self._words) < self._MOST_WORDS:
                self._words[word] = known
        return known


def measured(text: str) -> int:
    """Return the number of a text's tokens, by trying."""
    if not text:
        return 0
    # What is one character alone is one chunk whatever its size; with a word behind it, it is not.
    text += _WORD
    low, high = 0, 2 + len(text) // 4
    while not _fits(text, high):
        low, high = high, high * 2
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if _fits(text, middle) else (middle, high)
    return high - 1


def _fits(text: str, tokens: int) -> bool:
    return len(TextSplitter.from_tiktoken_model(_MODEL, tokens, trim=False).chunks(text)) <= 1
