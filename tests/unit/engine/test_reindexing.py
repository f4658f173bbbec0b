"""The index made again from what is kept."""

from __future__ import annotations

import asyncio
import io
from typing import Any

import pytest

from engine.errors import IndexUnavailable
from engine.index_check import IndexCheck
from engine.indexing import IndexingParts, is_in
from engine.ports import Removal
from engine.reindexing import Reindexed, reindex
from extproc.reindex import shown_progress
from tests.support.engine_rig import CALLER
from tests.support.exact_index import ExactIndex
from tests.support.retrieval import HashedEmbedder
from tests.support.store_rig import StoreRig

TENANT = CALLER.tenant


async def a_corpus(files: int = 5) -> StoreRig:
    """Return a rig whose store has files, all of them ingested."""
    rig = StoreRig()
    store = (await rig.made())["id"]
    async with rig.working():
        for number in range(files):
            await rig.attached(store, f"text number {number}")
    return rig


def parts_of(rig: StoreRig, index: ExactIndex, embedder: HashedEmbedder) -> IndexingParts:
    """Return what an index is made again with."""
    return IndexingParts(store=rig.store, embedder=embedder, index=index, batch=2)


async def again(parts: IndexingParts, tenant: str | None = None) -> tuple[Reindexed, list[str]]:
    """Make it again; return what became of it, and what was told meanwhile."""
    told: list[str] = []
    made = await reindex(parts, tenant, lambda done, total: told.append(f"{done}/{total}"))
    return made, told


async def test_what_was_lost_is_put_in_and_nothing_is_embedded_again() -> None:
    """T8: all files, told one by one; what is there is left alone."""
    rig = await a_corpus()
    empty, embedder = ExactIndex(), HashedEmbedder()
    made, told = await again(parts_of(rig, empty, embedder))
    assert made == Reindexed(files=5, put_in=5)
    assert told == [f"{n}/5" for n in range(6)]
    assert embedder.embedded == []
    for place in await rig.store.completed_attachments(after=None, limit=10):
        assert await empty.count(TENANT, place.store, place.attachment) == 1
    assert (await again(parts_of(rig, empty, embedder)))[0] == Reindexed(files=5, put_in=0)


async def test_what_is_there_is_only_counted() -> None:
    """P8: its texts and vectors are not read; what lacks a chunk or a vector is not there."""
    rig = await a_corpus(1)
    [place] = await rig.store.completed_attachments(after=None, limit=10)
    where = (TENANT, place.store, place.attachment)
    index = ExactIndex()
    parts = parts_of(rig, index, HashedEmbedder())
    await again(parts)

    async def unread(*_args: object, **_options: object) -> Any:
        raise AssertionError

    rig.store.chunks = unread  # type: ignore[method-assign]
    assert await is_in(parts, *where)
    assert not await is_in(parts_of(rig, index, HashedEmbedder("another")), *where)
    await index.remove(TENANT, place.store, [place.attachment])
    assert not await is_in(parts, *where)


async def test_another_model_embeds_all_of_it() -> None:
    """Vectors of two models are never compared."""
    rig = await a_corpus()
    embedder = HashedEmbedder("another")
    made, _ = await again(parts_of(rig, ExactIndex(), embedder))
    assert made.put_in == len(embedder.embedded) == 5


async def test_an_interrupted_run_is_gone_on_with() -> None:
    """The index goes away in the middle; the second run does what the first did not."""
    rig = await a_corpus(8)
    index = ExactIndex()
    insert, left = index.insert, 3

    async def for_a_while(*args: object) -> None:
        nonlocal left
        left -= 1
        if left < 0:
            raise IndexUnavailable("away")
        await insert(*args)  # type: ignore[arg-type]

    index.insert = for_a_while  # type: ignore[method-assign, assignment]
    with pytest.raises(IndexUnavailable):
        await again(parts_of(rig, index, HashedEmbedder()))
    index.insert = insert  # type: ignore[method-assign]
    made, _ = await again(parts_of(rig, index, HashedEmbedder()))
    assert made == Reindexed(files=8, put_in=5)


async def test_one_tenant_alone() -> None:
    """X1: others are neither counted nor touched."""
    rig = await a_corpus()
    index = ExactIndex()
    assert (await again(parts_of(rig, index, HashedEmbedder()), "other"))[0].files == 0
    assert (await again(parts_of(rig, index, HashedEmbedder()), "zz"))[0].files == 0
    assert (await again(parts_of(rig, index, HashedEmbedder()), TENANT))[0].put_in == 5


async def test_what_is_detached_meanwhile_is_not_left_behind() -> None:
    """X1: although whoever removes it has been there already."""
    rig = await a_corpus(1)
    [place] = await rig.store.completed_attachments(after=None, limit=10)
    embedder = HashedEmbedder("another")
    embedder.gate = asyncio.Event()
    index = ExactIndex()
    running = asyncio.create_task(again(parts_of(rig, index, embedder)))
    await embedder.reached.wait()
    await rig.got(f"/{place.store}", "DELETE")
    assert await rig.store.removals(limit=10) == [Removal(TENANT, place.store, place.attachment)]
    embedder.gate.set()
    made, _ = await running
    assert made.put_in == 0
    assert await index.count(TENANT, place.store, place.attachment) == 0


async def test_what_is_completed_meanwhile_is_put_in_too() -> None:
    """T8: by a worker that still has the model of before, behind the place where the walk is."""
    rig = await a_corpus(3)
    listed, index, hidden = rig.store.completed_attachments, ExactIndex(), True

    async def all_but_the_first(**asked: Any) -> list[Removal]:
        nonlocal hidden
        found = await listed(**asked)
        if asked["after"] is not None or not hidden:
            return found
        hidden = await index.count(TENANT, found[-1].store, found[-1].attachment) == 0
        return found[1:] if hidden else found

    rig.store.completed_attachments = all_but_the_first  # type: ignore[method-assign]
    made, told = await again(parts_of(rig, index, HashedEmbedder()))
    assert made == Reindexed(files=3, put_in=3)
    assert told == ["0/2", "1/2", "2/2", "3/3"]
    for place in await listed(after=None, limit=10):
        assert await index.count(TENANT, place.store, place.attachment) == 1


class _Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_terminal_shows_a_bar() -> None:
    """One line that fills."""
    terminal = _Terminal()
    progress = shown_progress(terminal)
    progress(1, 4)
    progress(4, 4)
    assert terminal.getvalue() == (
        f"\r[{'#' * 10}{' ' * 30}] 1 of 4 files\r[{'#' * 40}] 4 of 4 files\n"
    )


def test_elsewhere_there_are_lines_now_and_then() -> None:
    """The first, the last, and one in ten seconds."""
    lines, now = io.StringIO(), 0.0
    progress = shown_progress(lines, lambda: now)
    for done in range(5):
        progress(done, 4)
        now += 6
    assert lines.getvalue().splitlines() == ["0 of 4 files", "2 of 4 files", "4 of 4 files"]


async def test_an_index_that_lacks_files_is_told(caplog: pytest.LogCaptureFixture) -> None:
    """H3: it was lost, or is another one; searches find nothing then, and nothing fails."""
    rig = await a_corpus(3)
    parts = parts_of(rig, ExactIndex(), HashedEmbedder())
    with caplog.at_level("WARNING", "engine.index_check"):
        await IndexCheck(parts).look()
        assert "3 of 3 files of vector stores are not in this index" in caplog.text
        await again(parts)
        caplog.clear()
        await IndexCheck(parts).look()
        assert caplog.text == ""
