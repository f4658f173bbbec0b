"""The text of a file of a vector store: whole, or not at all."""

from __future__ import annotations

import json
import os
from typing import Any

import pytest

from engine.errors import Conflict, InvalidRequest, NotFound
from engine.limits import Limits
from engine.retrieval import no_retrieval
from engine.store_files import StoreFiles
from tests.support.engine_rig import CALLER
from tests.support.store_rig import StoreRig

WORDS = [f"word{number}" for number in range(2000)]


async def the_text(rig: StoreRig, store: str, file_id: str, most: int = 1 << 20) -> list[str]:
    """Return the chunks of a file whose text may have so many bytes."""
    files = StoreFiles(
        rig.store, no_retrieval("none"), randomness=os.urandom, limits=Limits(answer_bytes=most)
    )
    answer = await files.content(CALLER, store, file_id, "")
    return [part["text"] for part in json.loads(answer.body)["data"]]


async def attached(rig: StoreRig, text: str) -> tuple[str, str]:
    """Return a store, and a file in it, in chunks of 100 words."""
    store = (await rig.made())["id"]
    static = {"max_chunk_size_tokens": 100, "chunk_overlap_tokens": 50}
    strategy: dict[str, Any] = {"type": "static", "static": static}
    async with rig.working():
        return store, await rig.attached(store, text, chunking_strategy=strategy)


async def test_the_bound_is_in_bytes() -> None:
    """X5: of characters that take three each, a third as many."""
    rig = StoreRig()
    store, file_id = await attached(rig, "日本語" * 40)
    assert await the_text(rig, store, file_id, most=360) == ["日本語" * 40]
    with pytest.raises(InvalidRequest, match="over 359 bytes"):
        await the_text(rig, store, file_id, most=359)


@pytest.mark.parametrize(
    ("again", "error"), [(False, NotFound), (True, Conflict)], ids=["detached", "attached again"]
)
async def test_a_text_that_goes_meanwhile_is_not_cut_short(
    again: bool, error: type[Exception], monkeypatch: pytest.MonkeyPatch
) -> None:
    """H3: half of a text is not answered as if it were all of it."""
    monkeypatch.setattr("engine.store_files._TEXTS_AT_ONCE", 10)
    rig = StoreRig()
    store, file_id = await attached(rig, " ".join(WORDS))
    read = rig.store.chunk_texts

    async def then_gone(*args: Any, **asked: Any) -> list[str]:
        found = await read(*args, **asked)
        if asked["after"] == -1:
            await rig.got(f"/{store}/files/{file_id}", "DELETE")
            if again:
                await rig.made(f"/{store}/files", file_id=file_id)
        return found

    monkeypatch.setattr(rig.store, "chunk_texts", then_gone)
    with pytest.raises(error):
        await the_text(rig, store, file_id)
