"""Where a JSON object that comes in pieces ends: without parsing it, in any split. Pure."""

from __future__ import annotations

import re

_IN_STRING = re.compile(r'["\\]')
_OUTSIDE = re.compile(r'["{}\[\]]')
_SPACE = re.compile(r"\s+")


class JsonScan:
    """Follows the brackets of one object or array; each character is looked at once.

    It says where the value ends, not whether it is valid. A value of another kind has no end here.
    """

    def __init__(self) -> None:
        self.done = False
        self._depth = 0
        self._in_string = False
        # Characters at the start of the next piece that a backslash escapes.
        self._escaped = 0

    def feed(self, text: str, start: int = 0) -> int | None:
        """Take a piece, from `start` on; return the place behind the value's last bracket, or None."""
        place = start + self._escaped
        while not self.done:
            mark = (_IN_STRING if self._in_string else _OUTSIDE).search(text, place)
            if mark is None:
                break
            place = self._pass(mark)
        if self.done:
            return place
        self._escaped = max(0, place - len(text))
        return None

    def _pass(self, mark: re.Match[str]) -> int:
        """Note one mark; return the place from which on to look for the next."""
        sign = mark[0]
        if sign == "\\":
            return mark.end() + 1
        if sign == '"':
            self._in_string = not self._in_string
        elif sign in "{[":
            self._depth += 1
        elif self._depth:
            self._depth -= 1
            self.done = self._depth == 0
        return mark.end()


def documents(text: str) -> list[str]:
    """Return the objects of a text that is nothing but whole objects, one behind the other; else []."""
    found: list[str] = []
    text = text.strip()
    place = 0
    while text.startswith("{", place):
        end = JsonScan().feed(text, place)
        if end is None:
            return []
        found.append(text[place:end])
        space = _SPACE.match(text, end)
        place = space.end() if space else end
    return [] if place < len(text) else found
