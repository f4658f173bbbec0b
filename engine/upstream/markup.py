"""Tool markup in text: held back until it is known what it was (rule R8).

Servers whose tool parser does not run while streaming send calls as text. While tools are declared, text
that may be the start of a call is held; text that cannot be is released at once. What follows the whole
start of a call stays held until the turn's end says whether it was one.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from engine.upstream.shapes import BARE_SHAPES, SHAPES, Agreement, Shape, best

_BY_FIRST: dict[str, tuple[Shape, ...]] = {
    first: tuple(shape for shape in SHAPES if str(shape[0]).startswith(first))
    for first in {str(shape[0])[0] for shape in SHAPES}
}
_TOKENS = tuple({str(shape[0]) for shape in SHAPES} - {">>>"})


def _suspect() -> re.Pattern[str]:
    """Return a pattern for the first two characters of any token, or the first at a text's end."""
    pairs = {(token[0], token[1]) for token in (str(shape[0]) for shape in SHAPES)}
    return re.compile("|".join(rf"{re.escape(a)}(?={re.escape(b)}|\Z)" for a, b in sorted(pairs)))


_SUSPECT = _suspect()


class MarkupHold:
    """Splits text into what can be released and what must wait.

    `names` are the functions that a call without markup may name; empty: there are no such calls.
    """

    def __init__(self, names: Iterable[str] = ()) -> None:
        self.tail = ""
        """Text that may become the start of a call; its length is bounded."""
        self.size = 0
        """Characters from the start of a call on."""
        self.found = False
        """True once the whole start of a call was seen."""
        self._names = frozenset(names)
        self._held: list[str] = []
        self._fresh = bool(self._names)

    def begin(self) -> None:
        """Note that a message begins: calls without markup stand only there."""
        self._fresh = bool(self._names)

    def feed(self, text: str) -> str:
        """Take text as it came; return what is certainly no call."""
        if self.found:
            self._hold(text)
            return ""
        if not self.tail and not self._fresh and _SUSPECT.search(text) is None:
            return text
        text, self.tail = self.tail + text, ""
        if self._fresh:
            agreed = best(BARE_SHAPES, text, 0, self._names)
            if agreed is not Agreement.NONE:
                return self._keep(text, 0, agreed)
            self._fresh = False
        return self._sift(text)

    def _sift(self, text: str) -> str:
        for mark in _SUSPECT.finditer(text):
            agreed = best(_BY_FIRST[mark[0]], text, mark.start())
            if agreed is not Agreement.NONE:
                return self._keep(text, mark.start(), agreed)
        return text

    def _keep(self, text: str, place: int, agreed: Agreement) -> str:
        """Hold the text from a place on; return what stands before it."""
        if agreed is Agreement.WHOLE:
            self.found = True
            self._hold(text[place:])
        else:
            self.tail = text[place:]
        return text[:place]

    def _hold(self, text: str) -> None:
        self._held.append(text)
        self.size += len(text)

    @property
    def has_token(self) -> bool:
        """True if what waits begins with a whole token of a model's markup: too much for chance."""
        return self.found or self.tail.startswith(_TOKENS)

    def take_tail(self) -> str:
        """Give up what may become the start of a call, as text."""
        tail, self.tail = self.tail, ""
        return tail

    def release(self) -> str:
        """Give up everything held, as text, and start anew."""
        text = self.tail + "".join(self._held)
        self.drop()
        return text

    def drop(self) -> None:
        """Forget everything held: it was markup of calls that are known otherwise."""
        self.tail = ""
        self.size = 0
        self._held.clear()
        self.found = False
