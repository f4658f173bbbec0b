"""Tool markup in text: held back until it is known what it was (rule R8).

Servers whose tool parser does not run while streaming send calls as text. While tools are declared, text
that may be the start of such markup is held; text that cannot be is released at once. What follows a
whole start token stays held until the terminal object says whether it was calls.
"""

from __future__ import annotations

# Hermes and Qwen, Llama, Mistral, functionary and Llama's function form, Gemma and GLM.
START_TOKENS = (
    "<tool_call>", "<|tool_call", "<function=", "<|python_tag|>", "[TOOL_CALLS]", "<function_call>",
    "<tool_calls>", "<|tool_calls_section_begin|>",
)  # fmt: skip
_FIRST = frozenset(token[0] for token in START_TOKENS)
_LONGEST = max(len(token) for token in START_TOKENS)


class MarkupHold:
    """Splits text into what can be released and what must wait."""

    def __init__(self) -> None:
        self.tail = ""
        """Text that may become a start token."""
        self.size = 0
        """Characters behind a start token."""
        self._held: list[str] = []
        self.found = False
        """True once a whole start token was seen."""

    def feed(self, text: str) -> str:
        """Take text as it came; return what is certainly not markup."""
        if self.found:
            self._hold(text)
            return ""
        text = self.tail + text
        start = _find_token(text)
        if start is not None:
            self.found = True
            self._hold(text[start:])
            self.tail = ""
            return text[:start]
        cut = _possible_start(text)
        self.tail = text[cut:]
        return text[:cut]

    def _hold(self, text: str) -> None:
        self._held.append(text)
        self.size += len(text)

    def take_tail(self) -> str:
        """Give up what may become a start token, as text."""
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


def _find_token(text: str) -> int | None:
    places = [text.find(token) for token in START_TOKENS]
    found = [place for place in places if place >= 0]
    return min(found) if found else None


def _possible_start(text: str) -> int:
    """Return where the last suffix of `text` begins that may grow into a token; its length if none."""
    for place in range(max(0, len(text) - _LONGEST + 1), len(text)):
        if text[place] in _FIRST:
            suffix = text[place:]
            if any(token.startswith(suffix) for token in START_TOKENS):
                return place
    return len(text)
