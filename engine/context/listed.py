"""Which lists of tools a thread has shown (rule T5): a list is shown again only where it has changed."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence

import msgspec

_KIND = "mcp_list_tools"
_sorted = msgspec.json.Encoder(order="sorted").encode


def listing_key(label: str, tools: Sequence[Mapping[str, object]]) -> str:
    """Return what tells a shown list from another, as `<label>:<digest>`; `tools` as the item has them.

    Clients that replay a list may have sorted its keys or dropped its nulls.
    """
    plain = [{key: value for key, value in tool.items() if value is not None} for tool in tools]
    return f"{label}:{hashlib.sha256(_sorted(plain)).hexdigest()}"


def listing_key_of(label: str, item: bytes) -> str:
    """Return the key of a list that is encoded already."""
    return listing_key(label, _decode(item).tools)


class _Item(msgspec.Struct, frozen=True):
    tools: list[dict[str, object]]


_decode = msgspec.json.Decoder(_Item).decode


class Shown(msgspec.Struct, frozen=True):
    """The newest list of each label in a thread: what its key is, and which of the items it is."""

    keys: Mapping[str, str] = {}
    places: Mapping[str, int] = {}


NOTHING_SHOWN = Shown()


def shown_lists(items: Iterable[tuple[str, str | None]]) -> Shown:
    """Return the lists that are shown by items of a thread, given in order by type and key."""
    keys: dict[str, str] = {}
    places: dict[str, int] = {}
    for place, (kind, key) in enumerate(items):
        if kind == _KIND and key is not None:
            label = key.partition(":")[0]
            keys[label], places[label] = key, place
    return Shown(keys, places)
