"""Stored history as a continuation may use it (rules M2, M6, P7).

Deleted responses leave gaps: an output whose call is gone, or a call whose output is gone, would make a
model server refuse the whole request, so neither is sent.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from engine.context.compacted import behind_covered
from engine.ports import ReplayItem


class History(msgspec.Struct, frozen=True):
    """`replay` is what goes before the new input; `pending` are the calls that it must answer.

    `unread` are the bytes that are missing from it: more than a model can be sent.
    """

    replay: list[bytes]
    pending: frozenset[str]
    unread: int = 0


EMPTY = History([], frozenset())


def usable_history(history: list[ReplayItem], *, any_call_waits: bool = False) -> History:
    """Return what of the items can be sent, in order: nothing that a compaction covers.

    Only the calls of the newest response, the output items at the end, can still be answered; in a
    conversation, to which anything may have been added since, any call (`any_call_waits`).
    """
    items = behind_covered(history)
    newest = 0 if any_call_waits else _newest_output(items)
    answered = {item.call_id for item in items if item.type == "function_call_output"}
    called: set[str | None] = set()
    pending: set[str] = set()
    replay: list[bytes] = []
    unread = 0
    for place, item in enumerate(items):
        if item.replay is None and not item.unread:
            continue
        if item.type == "function_call":
            if item.call_id not in answered:
                if place < newest:
                    continue
                pending.add(str(item.call_id))
            called.add(item.call_id)
        elif item.type == "function_call_output" and item.call_id not in called:
            continue
        unread += item.unread
        if item.replay is not None:
            replay.append(item.replay)
    return History(replay, frozenset(pending), unread)


def _newest_output(items: Sequence[ReplayItem]) -> int:
    place = len(items)
    while place and items[place - 1].output:
        place -= 1
    return place
