"""Reasoning that a server without a reasoning parser leaves in the text: `<think> … </think>`. Pure."""

from __future__ import annotations

_PAIRS = {
    "<think>": "</think>",
    "<thinking>": "</thinking>",
    "<thought>": "</thought>",
    "[THINK]": "[/THINK]",
    "<seed:think>": "</seed:think>",
}
# White space before an opener or a closer that is still waited through.
_MOST_SPACE = 200


class ThinkSplit:
    """Splits a message's text into thought and text. Only at its beginning can a thought stand."""

    def __init__(self) -> None:
        self._closer = ""
        self._waiting = ""
        self._started = False
        self._silent = True
        self._behind = False

    @property
    def size(self) -> int:
        """Characters that wait."""
        return len(self._waiting)

    def feed(self, text: str) -> tuple[str, str]:
        """Take text as it came; return what is thought and what is text, in this order."""
        if self._started and not self._closer and not self._behind:
            return "", text
        text, self._waiting = self._waiting + text, ""
        if not self._started:
            return self._begin(text)
        if self._closer:
            return self._think(text)
        return "", self._answer(text)

    def end(self) -> tuple[str, str]:
        """Give up what waits: as what it would have been."""
        text, self._waiting = self._waiting, ""
        return (text, "") if self._closer else ("", "" if self._behind else text)

    def _begin(self, text: str) -> tuple[str, str]:
        """Look for an opener; a part of one waits."""
        begun = text.lstrip()
        for opener, closer in _PAIRS.items():
            if begun.startswith(opener):
                self._started, self._closer = True, closer
                return self._think(begun[len(opener) :])
        if len(text) - len(begun) < _MOST_SPACE and any(o.startswith(begun) for o in _PAIRS):
            self._waiting = text
            return "", ""
        self._started = True
        return "", text

    def _think(self, text: str) -> tuple[str, str]:
        """Look for the closer; a part of one waits, and so does white space, which belongs to it."""
        if self._silent:
            text = text.lstrip()
            self._silent = not text
        thought, closer, answer = text.partition(self._closer)
        if closer:
            self._closer, self._behind = "", True
            return thought.rstrip(), self._answer(answer)
        certain = len(text) - self._begun_closer(text)
        kept = len(text[:certain].rstrip())
        if certain - kept > _MOST_SPACE:
            kept = certain
        self._waiting = text[kept:]
        return text[:kept], ""

    def _begun_closer(self, text: str) -> int:
        """Return how many characters at the end may be the beginning of the closer."""
        for size in range(min(len(self._closer) - 1, len(text)), 0, -1):
            if self._closer.startswith(text[-size:]):
                return size
        return 0

    def _answer(self, text: str) -> str:
        """Leave out the white space between a thought and its answer."""
        text = text.lstrip()
        self._behind = not text
        return text
