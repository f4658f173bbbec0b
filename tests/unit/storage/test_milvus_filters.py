"""Filters of Milvus: many attachments are named in lots, and worked out once."""

from __future__ import annotations

import gc
import json

from storage.milvus.filters import LOT, NameLots, name_of, within


async def test_lots_name_each_attachment_once() -> None:
    """X1: as digests; whatever is asked with, and however many there are."""
    lots = NameLots()
    many = [f"file-{number}" for number in range(2 * LOT + 1)]
    for attachments in (many, tuple(many * 2), frozenset(many)):
        found = await lots.of(attachments)
        assert [len(json.loads(f"[{lot}]")) for lot in found] == [LOT, LOT, 1]
        named = [name for lot in found for name in json.loads(f"[{lot}]")]
        assert sorted(named) == sorted(map(name_of, many))
    assert await lots.of([]) == await lots.of(frozenset()) == []
    assert within("0f", '"a", "b"') == 'scope == "0f" and name in ["a", "b"]'


async def test_a_set_is_worked_out_once_and_forgotten_with_it() -> None:
    """X5: each query of a search asks with it, twice; nothing is kept when the search is over."""
    lots = NameLots()
    attachments = frozenset(f"file-{number}" for number in range(LOT))
    assert await lots.of(attachments) is await lots.of(attachments)
    del attachments
    gc.collect()
    assert not lots._known
