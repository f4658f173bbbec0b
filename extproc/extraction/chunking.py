"""Cuts a text into chunks of so many tokens, where it pauses: at headings, paragraphs, sentences.

The tokens are those of o200k, whose vocabulary comes with the library: nothing is fetched. The same text
gives the same chunks, always: what was ingested before a crash is found again after it.
"""

from __future__ import annotations

from collections.abc import Iterator

from semantic_text_splitter import MarkdownSplitter, TextSplitter

from extproc.extraction.wire import Cut

_MODEL = "gpt-4o"


def warm() -> None:
    """Load the vocabulary, once for all processes that are forked from this one."""
    TextSplitter.from_tiktoken_model(_MODEL, 1)


def chunks_of(text: str, cut: Cut, *, markup: bool) -> Iterator[tuple[str, int]]:
    """Yield each chunk with the number of its tokens, none of them empty; `markup` is for Markdown."""
    kind = MarkdownSplitter if markup else TextSplitter
    splitter = kind.from_tiktoken_model(_MODEL, cut.size, overlap=cut.overlap)
    ratio = 0.25
    for chunk in splitter.chunks(text):
        if chunk.strip():
            tokens = count(chunk, ratio)
            ratio = tokens / len(chunk)
            yield chunk, tokens


def count(text: str, ratio: float = 0.25) -> int:
    """Return the number of a text's tokens; `ratio` to its characters is a guess that makes it quicker.

    The library does not tell it: it is the smallest size of which the text is one chunk.
    """
    guess = max(1, int(len(text) * ratio))
    step, low, high = 4, 0, guess
    while not _fits(text, high):
        low, high, step = high, high + step, step * 2
    step = 4
    while (lower := max(low, high - step)) > low and _fits(text, lower):
        high, step = lower, step * 2
    low = max(low, lower)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if _fits(text, middle) else (middle, high)
    return high


def _fits(text: str, tokens: int) -> bool:
    return len(TextSplitter.from_tiktoken_model(_MODEL, tokens, trim=False).chunks(text)) <= 1
