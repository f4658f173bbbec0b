"""Marks of citations found in text as it comes, however it is cut into pieces (rule T8). Pure.

Text is held back from the first character of what may be a mark on, and let go as soon as it cannot be one.
"""

from __future__ import annotations

import re
from collections.abc import Callable

import msgspec

from engine.context.sources import CITATION, Source

_OPENING = "【"
_MAY_BECOME = re.compile(
    r" ?(?:【[ ]?(?:\d{1,6}(?:[ ]?[,，、;][ ]?\d{1,6}){0,7}[ ]?(?:[,，、;][ ]?|†[^【】\n]{0,64})?)?)?"
)
_DIGITS = re.compile(r"\d+")

Find = Callable[[int], Source | None]


class Mark(msgspec.Struct, frozen=True):
    """A citation: what the model wrote, and the files that it means, each once."""

    text: str
    sources: tuple[Source, ...]


class CitationReader:
    """Reads one text. A mark none of whose numbers means anything is text like any other."""

    def __init__(self, find: Find) -> None:
        self._find = find
        self.held = ""

    def passes(self, text: str) -> bool:
        """True if more text can be let go as it is: nothing is held, and no mark begins in it."""
        return not self.held and _OPENING not in text and text[-1:] != " "

    def feed(self, text: str) -> list[str | Mark]:
        """Take more text and return what can be let go: pieces of text, and marks where they stood."""
        if self.passes(text):
            return [text] if text else []
        return self._read(self.held + text)

    def end(self) -> list[str | Mark]:
        """Return what was held back: it is no mark."""
        held, self.held = self.held, ""
        return [held] if held else []

    def _read(self, text: str) -> list[str | Mark]:
        pieces: list[str | Mark] = []
        said = ""
        place = 0
        self.held = ""
        while (start := self._start(text, place)) >= 0:
            said += text[place:start]
            match = CITATION.match(text, start)
            if match is not None and (sources := self._sources(match[0])):
                pieces += [said] if said else []
                pieces.append(Mark(match[0], sources))
                said, place = "", match.end()
            elif match is None and _MAY_BECOME.fullmatch(text, start):
                self.held = text[start:]
                place = len(text)
            else:
                # Up to the bracket itself: another mark may begin right behind it.
                place = text.find(_OPENING, start) + 1
                said += text[start:place]
        said += text[place:]
        return [*pieces, said] if said else pieces

    @staticmethod
    def _start(text: str, place: int) -> int:
        """Return where the next mark may begin: at a bracket, or at the space before one."""
        bracket = text.find(_OPENING, place)
        if bracket < 0:
            last = len(text) - 1
            return last if last >= place and text[last] == " " else -1
        return bracket - (bracket > place and text[bracket - 1] == " ")

    def _sources(self, mark: str) -> tuple[Source, ...]:
        numbers = _DIGITS.findall(mark.partition("†")[0])
        found = (self._find(int(number)) for number in numbers)
        return tuple(dict.fromkeys(source for source in found if source is not None))
