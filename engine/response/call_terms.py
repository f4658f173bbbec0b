"""What all calls of one response have in common that the gateway makes for it."""

from __future__ import annotations

import msgspec


class Numbering:
    """Counts what the calls of a response find; `next` is the number of the next result."""

    def __init__(self, first: int = 1) -> None:
        self.next = first

    def take(self, count: int) -> int:
        """Return the first of so many numbers."""
        first = self.next
        self.next += count
        return first


class CallTerms(msgspec.Struct, frozen=True):
    """What all calls of a response have in common: `included` is what the client asked to see."""

    included: frozenset[str] = frozenset()
    numbering: Numbering = msgspec.field(default_factory=Numbering)
