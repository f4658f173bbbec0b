"""Searches among input items as the model is sent them: a call with what it has found (rule M4).

A client that keeps the history itself sends back what it was shown. Without results there is nothing that
a model could be told of a search; the answer that it led to is in the message behind it.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

import msgspec

from engine.api.file_search import CALL, FILE_SEARCH
from engine.api.json import encode
from engine.context.owned_calls import call_and_output
from engine.context.sources import Found, Sources, numbered, told
from engine.context.tool_names import shown_names
from engine.ports import StoredItem

_KEY = (FILE_SEARCH, FILE_SEARCH)


class _Search(msgspec.Struct, frozen=True):
    queries: list[str] = []
    results: list[Found] | None = None


def with_searches(
    items: Sequence[StoredItem], *, first: int, taken: Collection[str] = ()
) -> list[StoredItem]:
    """Return input items with what they have found, numbered from `first` on.

    `taken` are the client's functions. What was read from the store has its numbers already.
    """
    first = max(first, Sources.of(items).next)
    told_items = []
    for item in items:
        if item.type == CALL and item.replay is None:
            item, first = _told(item, first, taken)
        told_items.append(item)
    return told_items


def _told(item: StoredItem, first: int, taken: Collection[str]) -> tuple[StoredItem, int]:
    try:
        search = _decode(item.item)
    except msgspec.ValidationError:
        # A reference to what a model server has made of it.
        return item, first
    if search.results is None:
        return item, first
    name = shown_names([_KEY], taken)[_KEY]
    arguments = encode({"queries": search.queries}).decode()
    replay = call_and_output(item.id, name, arguments, told(search.results, first))
    count = len(search.results)
    return (
        msgspec.structs.replace(item, replay=replay, call_id=numbered(first, count)),
        first + count,
    )


_decode = msgspec.json.Decoder(_Search).decode
