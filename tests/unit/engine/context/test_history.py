"""`engine.context.history`: what of a stored history can be sent (P7, M2, M6)."""

from __future__ import annotations

import msgspec
import pytest

from engine.context.history import EMPTY, History, usable_history
from engine.ports import ReplayItem


def item(text: str, *, output: bool) -> ReplayItem:
    """`m…` is a message, `c:x` a call, `o:x` its output, `r…` reasoning, `-` is never sent.

    `s` is a summary, `s:covers` one that covers what is before it.
    """
    kind, _, call_id = text.partition(":")
    types = {"c": "function_call", "o": "function_call_output", "r": "reasoning"}
    types["s"] = "compaction"
    replay = None if text.startswith("-") else text.encode()
    return ReplayItem(types.get(kind, "message"), call_id or None, replay, output)


def usable(text: str) -> tuple[str, set[str]]:
    """Read items, those of a response's output in capitals: `m1 C:a` is an input and an output."""
    found = [item(word.lower(), output=word[0].isupper()) for word in text.split()]
    history = usable_history(found)
    return b" ".join(history.replay).decode(), set(history.pending)


@pytest.mark.parametrize(
    ("items", "sent", "pending"),
    [
        ("", "", set()),
        ("m1 M2 m3 M4", "m1 m2 m3 m4", set()),
        ("m1 R1 C:a", "m1 r1 c:a", {"a"}),
        ("m1 C:a C:b", "m1 c:a c:b", {"a", "b"}),
        ("m1 C:a o:a M2", "m1 c:a o:a m2", set()),
        ("m1 C:a o:a C:b", "m1 c:a o:a c:b", {"b"}),
        ("c:a o:a M1", "c:a o:a m1", set()),
        ("m1 - M2", "m1 m2", set()),
        # What a summary covers is not sent; one of the client's own stands where it is.
        ("m1 s M2", "m1 s m2", set()),
        ("m1 M2 m3 S:covers M4", "s:covers m4", set()),
        ("m1 S:covers M2 m3 S:covers M4 m5", "s:covers m4 m5", set()),
        ("m1 M2 s:covers m3 M4", "s:covers m3 m4", set()),
        ("m1 C:a o:a S:covers M2", "s:covers m2", set()),
        ("m1 C:a S:covers C:b", "s:covers c:b", {"b"}),
        # A deleted response has left a call without its output, or an output without its call.
        ("m1 C:a m3 M4", "m1 m3 m4", set()),
        ("o:a M2 m3 M4", "m2 m3 m4", set()),
        ("m1 C:a m3 C:b", "m1 m3 c:b", {"b"}),
        ("o:a C:b", "c:b", {"b"}),
        # An output before its call is none.
        ("o:a M1 C:a", "m1 c:a", set()),
        # The newest response failed before it made anything.
        ("m1 C:a o:a", "m1 c:a o:a", set()),
        ("m1 C:a m2", "m1 m2", set()),
    ],
)
def test_only_what_pairs_up_is_sent(items: str, sent: str, pending: set[str]) -> None:
    """P7: gaps are closed; M6: the calls of the newest response wait for their output."""
    assert usable(items) == (sent, pending)


def test_what_was_not_read_counts_where_it_would_be_sent() -> None:
    """X5: not what a summary covers, nor an output without its call."""
    unread = [
        msgspec.structs.replace(item(text, output=False), replay=None, unread=size)
        for text, size in (("m", 1000), ("s:covers", 100), ("o:a", 20), ("c:b", 7), ("o:b", 3))
    ]
    history = usable_history([*unread, item("m2", output=False)])
    assert history == History([b"m2"], frozenset(), 110)


def test_an_empty_history_is_empty() -> None:
    """A first turn."""
    assert usable_history([]) == EMPTY
