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
# What the library does with a text without pauses takes time that grows with the square of its length:
# minified JSON, base64, a genome. So such a stretch is cut before, at the latest after so many characters.
_STRETCH = 8192
_PAUSE = re.compile(r"[.!?]\s|[\n。！？]")
_GAP = re.compile(r"\W(?=\w*\Z)")
_LONGEST_WORD = 1024
_RUN = 2048
_LONG_RUN = re.compile(rf"(?<![^\W\d_])[^\W\d_]{{{_RUN},}}")


def warm() -> None:
    """Load the vocabulary, once for all processes that are forked from this one."""
    TextSplitter.from_tiktoken_model(_MODEL, 1)


def chunks_of(text: str, cut: Cut, *, markup: bool) -> Iterator[str]:
    """Yield the chunks of a text, none of them empty; `markup` is for Markdown."""
    kind = MarkdownSplitter if markup else TextSplitter
    splitter = kind.from_tiktoken_model(_MODEL, cut.size, overlap=cut.overlap)
    bound = Bound(cut.size)
    for stretch in _stretches(text):
        for chunk in splitter.chunks(stretch):
            if chunk.strip():
                yield from _within(chunk, bound)


class Bound:
    """Tells whether texts have at most `tokens` tokens."""

    def __init__(self, tokens: int) -> None:
        self._splitter = TextSplitter.from_tiktoken_model(_MODEL, tokens + 1, trim=False)

    def holds(self, text: str) -> bool:
        """Tell it of one text."""
        # What is one character alone is one chunk whatever its size; with a word behind it, it is not.
        return len(self._splitter.chunks(text + _WORD)) == 1


def _within(chunk: str, bound: Bound) -> Iterator[str]:
    """Yield a chunk, or its halves where it is one character with a thousand accents: it is not cut else."""
    if len(chunk) < 2 or bound.holds(chunk):
        yield chunk
        return
    middle = len(chunk) // 2
    for half in (chunk[:middle], chunk[middle:]):
        if half.strip():
            yield from _within(half, bound)


def _stretches(text: str) -> Iterator[str]:
    """Yield the text in pieces none of which goes on for long without a pause; as a rule, one."""
    begun = 0
    for end in _ends(text):
        yield text[begun:end]
        begun = end
    yield text[begun:]


def _ends(text: str) -> Iterator[int]:
    """Yield the places where a text without pauses is cut, in order."""
    paused = 0
    for pause in _PAUSE.finditer(text):
        yield from _ends_within(text, paused, pause.end())
        paused = pause.end()
    yield from _ends_within(text, paused, len(text))


def _ends_within(text: str, start: int, end: int) -> Iterator[int]:
    """Yield where a text without pauses is cut: between words, but for words of thousands of letters."""
    if end - start <= _RUN:
        return
    runs = [
        place
        for run in _LONG_RUN.finditer(text, start, end)
        for place in range(run.start() + _RUN, run.end(), _RUN)
    ]
    for place in [*runs, end]:
        while place - start > _STRETCH:
            start = _between_words(text, start + _STRETCH)
            yield start
        if place < end:
            yield place
            start = place


def _between_words(text: str, place: int) -> int:
    """Return the nearest place before, or this one, at which no word is cut."""
    gap = _GAP.search(text, place - _LONGEST_WORD, place)
    return gap.end() if gap else place
