"""What one document may cost, and how a reader says that it cannot be read."""

from __future__ import annotations

from typing import Literal, NoReturn

import msgspec

MIB = 1 << 20

Code = Literal["invalid_file", "unsupported_file"]


class Bounds(msgspec.Struct, frozen=True, kw_only=True):
    """Sizes in bytes, times in seconds."""

    text_bytes: int
    """The text of a document, in UTF-8."""
    pages: int
    """Pages of a PDF, slides, sheets."""
    entries: int
    """Files in an Office document, which is a zip archive."""
    unpacked_bytes: int
    """All of them unpacked."""
    ratio: int
    """How many times larger they may be unpacked."""
    seconds: float
    """Of the processor."""
    wall_seconds: float
    """By the clock: much more, because other processes may have the processor."""
    memory_bytes: int
    """What the process that reads a document may take for it."""


class Unreadable(Exception):
    """A document that cannot be read; the message is a sentence for its owner."""

    def __init__(self, message: str, code: Code = "invalid_file") -> None:
        super().__init__(message)
        self.message = message
        self.code: Code = code


def unsupported(message: str) -> NoReturn:
    """Refuse a kind of document that is not read."""
    raise Unreadable(message, "unsupported_file")


def too_much_text(most: int) -> Unreadable:
    """Return the refusal of a text that is over its bound."""
    return Unreadable(f"The document's text is over the limit of {most} bytes.")
