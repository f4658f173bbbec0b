"""What a search costs at most: its time, how deep it looks, and what runs on when it fails."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping, Sequence

import pytest

from engine.errors import IndexUnavailable, SearchTimedOut
from engine.ports import Comparison, FoundChunk, Hit
from engine.search import VectorSearch
from tests.support.corpus import ME, Corpus
from tests.support.exact_index import ExactIndex
from tests.support.fake_model import FakeModel, Hang, Head
from tests.support.retrieval import HashedEmbedder
from tests.support.store_rig import StoreRig


class Watched(ExactIndex):
    """An exact index that tells what it is asked; searches by words fail, or hang, where told to."""

    def __init__(self) -> None:
        super().__init__()
        self.limits: list[int] = []
        self.among: list[object] = []
        self.hangs = self.fails = False
        self.ended = 0

    async def by_vector(
        self,
        tenant: str,
        store: str,
        vector: bytes,
        *,
        limit: int,
        attachments: Collection[str] | None = None,
    ) -> list[Hit]:
        self.limits.append(limit)
        self.among.append(attachments)
        if self.hangs:
            try:
                await asyncio.Event().wait()
            finally:
                self.ended += 1
        return await super().by_vector(tenant, store, vector, limit=limit, attachments=attachments)

    async def by_words(
        self,
        tenant: str,
        store: str,
        text: str,
        *,
        limit: int,
        attachments: Collection[str] | None = None,
    ) -> list[Hit]:
        self.among.append(attachments)
        if self.fails:
            raise IndexUnavailable("away")
        return await super().by_words(tenant, store, text, limit=limit, attachments=attachments)


@pytest.fixture
async def watched() -> tuple[Corpus, Watched]:
    made = Corpus()
    made.index = index = Watched()
    made.search = VectorSearch(made.store, index, HashedEmbedder(), timeout=0.1)
    await made.vector_store("s")
    return made, index


async def test_a_search_that_hangs_ends_at_its_deadline(watched: tuple[Corpus, Watched]) -> None:
    """P2: 503 in time, and nothing of it runs on."""
    corpus, index = watched
    index.hangs = True
    async with asyncio.timeout(30):
        with pytest.raises(SearchTimedOut, match=r"longer than 0\.1 seconds"):
            await corpus.found("alpha", "beta")
    assert index.ended == len(index.limits) == 2


async def test_what_fails_ends_the_searches_beside_it(watched: tuple[Corpus, Watched]) -> None:
    """T2: its own error, at once, and not that of the deadline."""
    corpus, index = watched
    index.hangs = index.fails = True
    async with asyncio.timeout(30):
        with pytest.raises(IndexUnavailable, match="away"):
            await corpus.found("alpha", "beta")
    assert index.ended == len(index.limits)


@pytest.mark.parametrize(
    ("ranker", "threshold", "limits"),
    [
        # Behind the fiftieth there is nothing better than it, and that is below.
        ("none", 0.99, [50]),
        # A place that both rankings have further down reaches half of the best, and no more.
        ("auto", 0.99, [50]),
        # What comes next may pass.
        ("none", 0.5, [50, 200]),
        ("auto", 0.2, [50, 200]),
    ],
)
async def test_a_search_looks_no_deeper_than_something_can_pass(
    ranker: str, threshold: float, limits: list[int]
) -> None:
    """T8: few results for a high threshold are all that there are."""
    corpus = Corpus()
    corpus.index = index = Watched()
    corpus.search = VectorSearch(corpus.store, index, HashedEmbedder())
    await corpus.vector_store("s")
    await corpus.attach("s", "alpha")
    for _ in range(2):
        # The same words in one file are found once, so there are fewer results than are asked for.
        await corpus.attach("s", *["alpha beta gamma"] * 35)
    found = await corpus.found("alpha", ranker=ranker, threshold=threshold, limit=10)
    assert found[0].text == "alpha"
    assert index.limits == limits


async def test_few_texts_are_read_beside_what_is_returned(monkeypatch: pytest.MonkeyPatch) -> None:
    """X5: many stores with the same files do not make the store read all that the index named."""
    corpus = Corpus()
    read: list[int] = []
    really = corpus.store.found

    async def counted(
        tenant: str, places: Sequence[tuple[str, int]]
    ) -> Mapping[tuple[str, int], FoundChunk]:
        found = await really(tenant, places)
        read.append(len(found))
        return found

    monkeypatch.setattr(corpus.store, "found", counted)
    stores = [f"s{number}" for number in range(8)]
    for store in stores:
        await corpus.vector_store(store)
    for number in range(100):
        file_id = await corpus.file()
        for store in stores:
            await corpus.attach(store, *_same(number), file_id=file_id)
    found = await corpus.found("alpha", "beta", stores=stores, limit=50)
    assert len({result.text for result in found}) == len(found) == 50
    assert max(read) <= 500
    # 50 texts in eight stores, and what was read ahead of them; there are 16,000.
    assert sum(read) <= 50 * 8 + 500


async def test_places_of_which_nothing_is_left_are_left_out_many_at_a_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """X5: an index that is far behind costs a few questions, and the texts of what is there."""
    corpus = Corpus()
    asked: list[int] = []
    really = corpus.store.found

    async def counted(
        tenant: str, places: Sequence[tuple[str, int]]
    ) -> Mapping[tuple[str, int], FoundChunk]:
        asked.append(len(places))
        return await really(tenant, places)

    await corpus.vector_store("s")
    gone = await corpus.file()
    await corpus.attach("s", *["alpha"] * 900, file_id=gone)
    await corpus.store.detach(ME, "s", gone)
    await corpus.attach("s", "alpha with more beside it")
    monkeypatch.setattr(corpus.store, "found", counted)
    found = await corpus.found("alpha", limit=1)
    assert [result.text for result in found] == ["alpha with more beside it"]
    # Each of four looks, ever deeper, knows nothing of the one before.
    assert len(asked) <= 4 * 6


def _same(number: int) -> list[str]:
    return [f"alpha beta {number} {part}" for part in range(20)]


async def test_one_set_of_files_is_asked_for_by_all_looks() -> None:
    """An index can prepare it once: it is the same object, whatever it is searched for."""
    corpus = Corpus()
    corpus.index = index = Watched()
    corpus.search = VectorSearch(corpus.store, index, HashedEmbedder())
    await corpus.vector_store("s")
    await corpus.attach("s", "alpha", topic="food")
    asked = Comparison(type="eq", key="topic", value="food")
    assert await corpus.found("alpha", "beta", filters=asked)
    assert len(index.among) == 4
    assert isinstance(index.among[0], frozenset)
    assert all(each is index.among[0] for each in index.among)


async def test_the_api_answers_503_in_time() -> None:
    """P2: while the model that embeds says nothing, and while the one that rewrites does."""
    rig = StoreRig(FakeModel(Hang(asyncio.Event())), rewrite_model="small", search_seconds=0.1)
    store = (await rig.made())["id"]
    rig.parts.embedder.gate = asyncio.Event()
    async with asyncio.timeout(30):
        for rewrite in (False, True):
            answer = await rig.ask(
                "POST", f"/{store}/search", {"query": "a", "rewrite_query": rewrite}
            )
            assert (answer.status, b'"search_timeout"' in answer.body) == (503, True)
            assert answer.headers["retry-after"] == "1"


async def test_what_cannot_be_rewritten_ends_the_other_queries() -> None:
    """T2: a refusal of the model is answered at once, and the call beside it is hung up."""
    model = FakeModel(turns=[[Hang(asyncio.Event())], [Head(400), b"{}"]])
    rig = StoreRig(model, rewrite_model="small")
    store = (await rig.made())["id"]
    async with asyncio.timeout(20):
        error = await rig.refused(
            "POST", f"/{store}/search", {"query": ["a", "b"], "rewrite_query": True}
        )
        assert error["status"] == 400
        await model.aborted.wait()
