"""Replayed items in rounds: what may be left out of a prompt, and what belongs together. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import msgspec


class _Item(msgspec.Struct):
    type: str = "message"
    role: str = ""
    call_id: str = ""


_items = msgspec.json.Decoder(list[_Item])


class Rounds(msgspec.Struct, frozen=True):
    """`leading` are instructions at the beginning; each round begins with a user's message."""

    leading: list[bytes]
    rounds: list[list[bytes]]

    def without(self, count: int) -> list[bytes]:
        """Return the items without the oldest rounds."""
        return [*self.leading, *(item for one in self.rounds[count:] for item in one)]


def in_rounds(replay: Sequence[bytes]) -> Rounds:
    """Divide items so that a call and its output are in one round, and instructions in none."""
    leading: list[bytes] = []
    rounds: list[list[bytes]] = []
    waiting: set[str] = set()
    for raw in replay:
        # One stored item may be replayed as several, such as a call with its output.
        read = _items.decode(b"[%b]" % raw)
        if not rounds and read[0].role in ("system", "developer"):
            leading.append(raw)
            continue
        if not rounds or (read[0].role == "user" and not waiting):
            rounds.append([])
        rounds[-1].append(raw)
        _follow(waiting, read)
    return Rounds(leading, rounds)


def _follow(waiting: set[str], items: Iterable[_Item]) -> None:
    for item in items:
        if item.type == "function_call":
            waiting.add(item.call_id)
        elif item.type == "function_call_output":
            waiting.discard(item.call_id)
