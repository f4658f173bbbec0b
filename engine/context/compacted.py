"""What a `compaction` item says to a model, and what it stands for (rules M9, X4). Pure.

A client gets it sealed, and brings it back as it came. What the model is sent is in it as bytes, so that
every later turn begins with the same ones. One that *covers* was made within a response: nothing before it
is sent any more, whether a client leaves that out or not, and so what was not summarised is in it too. One
of `POST /v1/responses/compact` stands behind the messages that the client goes on sending.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Protocol, TypeVar

import msgspec

from engine.api.json import encode

COMPACTION = "compaction"
COVERS = "covers"
"""The `call_id` of such an item, which is what is read of items without parsing them."""

_LEAD = "Summary of the conversation up to this point:\n\n"


class Contents(msgspec.Struct, frozen=True):
    """What is sealed: the items that the model is sent in its place, as JSON with commas between them."""

    replay: str
    covers: bool = False


class _Place(Protocol):
    @property
    def type(self) -> str: ...
    @property
    def call_id(self) -> str | None: ...


P = TypeVar("P", bound=_Place)


def summary_message(text: str) -> bytes:
    """Return what the model is sent of a summary: a user's message, which every chat template takes."""
    return encode({"role": "user", "content": _LEAD + text})


def pack(replay: Iterable[bytes], *, covers: bool) -> str:
    """Return what is to be sealed."""
    return encode(Contents(b",".join(replay).decode(), covers)).decode()


_unpack = msgspec.json.Decoder(Contents).decode


def unpack(packed: str) -> Contents:
    """Return what was sealed."""
    return _unpack(packed)


def covers(item: _Place) -> bool:
    """True if nothing before this item is sent to a model."""
    return item.type == COMPACTION and item.call_id == COVERS


def behind_covered(items: Sequence[P]) -> Sequence[P]:
    """Return the items from the last one on that covers what is before it; all, where there is none."""
    for place in range(len(items) - 1, -1, -1):
        if covers(items[place]):
            return items[place:]
    return items
