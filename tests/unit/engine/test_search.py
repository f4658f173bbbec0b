"""Searches over the memory store and an exact index."""

from __future__ import annotations

import pytest

from engine.errors import NotFound
from engine.ports import Comparison, IndexedChunk, SearchResult, StoreChange
from tests.support.corpus import ME, Corpus
from tests.support.retrieval import hashed

OTHER = "other"
DAY = 86_400


@pytest.fixture
async def corpus() -> Corpus:
    made = Corpus()
    await made.vector_store("s")
    return made


def texts(results: list[SearchResult]) -> list[str]:
    return [result.text for result in results]


async def test_the_best_is_first_with_all_that_is_known_of_it(corpus: Corpus) -> None:
    """T8: text, file, name, attributes, and a score that is 1 for what is best by vectors and words."""
    await corpus.attach("s", "the moon is far away", "cheese is made of milk", topic="food")
    await corpus.attach("s", "ships sail the sea")
    best, *rest = await corpus.found("cheese of milk")
    assert best.text == "cheese is made of milk"
    assert best.score == 1.0
    assert (best.store, best.number, best.attributes) == ("s", 1, {"topic": "food"})
    assert best.filename == f"{best.file_id}.txt"
    assert all(0 <= result.score < 1 for result in rest)


async def test_no_ranker_means_the_vectors_alone(corpus: Corpus) -> None:
    """T8: the score is the cosine."""
    await corpus.attach("s", "one two", "three four")
    results = await corpus.found("one two", ranker="none")
    assert [round(result.score, 5) for result in results] == [1.0, 0.0]


async def test_weights_choose_between_vectors_and_words(corpus: Corpus) -> None:
    """T8: with all the weight on one side, only that side is asked."""
    await corpus.attach("s", "alpha", "beta")
    by_words = await corpus.found("alpha", weights=(0.0, 1.0))
    by_vectors = await corpus.found("alpha", weights=(1.0, 0.0))
    assert texts(by_words) == ["alpha"]
    assert texts(by_vectors) == ["alpha", "beta"]
    assert by_words[0].score == by_vectors[0].score == 1.0


async def test_a_threshold_is_compared_with_the_final_score(corpus: Corpus) -> None:
    """T8: what is below is left out."""
    await corpus.attach("s", "alpha beta", "gamma delta")
    assert texts(await corpus.found("alpha beta", threshold=0.99)) == ["alpha beta"]
    assert await corpus.found("omega", threshold=0.99, ranker="none") == []


async def test_filters_are_exact(corpus: Corpus) -> None:
    """T8: nothing else is found, however well it fits."""
    for year in (2020, 2021, 2022):
        await corpus.attach("s", f"report of {year}", year=float(year))
    late = Comparison("gte", "year", 2021.0)
    found = await corpus.found("report of 2020", filters=late)
    assert sorted(texts(found)) == ["report of 2021", "report of 2022"]
    none = Comparison("eq", "year", 1999.0)
    assert await corpus.found("report", filters=none) == []


async def test_a_filter_holds_where_the_index_does_not(corpus: Corpus) -> None:
    """T8: an index that does not know filters shows nothing that is not wanted."""
    await corpus.attach("s", "alpha", kind="a")
    await corpus.attach("s", "alpha", kind="b")
    real = corpus.index.by_vector

    async def careless(*args: object, **kwargs: object) -> object:
        return await real(*args, **{**kwargs, "attachments": None})  # type: ignore[arg-type]

    corpus.index.by_vector = careless  # type: ignore[method-assign, assignment]
    found = await corpus.found("alpha", filters=Comparison("eq", "kind", "b"))
    assert [result.attributes for result in found] == [{"kind": "b"}]


async def test_several_queries_and_stores_are_one_answer(corpus: Corpus) -> None:
    """T8: the best of each, each once."""
    await corpus.vector_store("t")
    await corpus.attach("s", "alpha", "noise")
    await corpus.attach("t", "beta", "more")
    found = await corpus.found("alpha", "beta", stores=["s", "t", "s"], limit=2)
    assert sorted(texts(found)) == ["alpha", "beta"]


async def test_a_file_in_two_stores_is_found_once(corpus: Corpus) -> None:
    """T8: its text takes the place of nothing else."""
    await corpus.vector_store("t")
    file_id = await corpus.file()
    for store in ("s", "t"):
        await corpus.attach(store, "alpha", "beta", file_id=file_id)
    found = await corpus.found("alpha", stores=["s", "t"], limit=2)
    assert texts(found) == ["alpha", "beta"]


async def test_what_was_detached_is_not_found_and_takes_no_place(corpus: Corpus) -> None:
    """X1: although the index still has it, at the top, and in numbers."""
    for _ in range(80):
        file_id = await corpus.file()
        await corpus.attach("s", "alpha", file_id=file_id)
        await corpus.store.detach(ME, "s", file_id)
    await corpus.attach("s", "alpha with much beside it")
    assert texts(await corpus.found("alpha", limit=1)) == ["alpha with much beside it"]


async def test_an_index_that_is_wrong_shows_nothing_of_others(corpus: Corpus) -> None:
    """X1: it answers with places of another tenant, and of another store."""
    await corpus.vector_store("theirs", OTHER)
    secret = await corpus.attach("theirs", "secret alpha", tenant=OTHER)
    await corpus.vector_store("mine too")
    elsewhere = await corpus.attach("mine too", "elsewhere alpha")
    for attachment in (secret, elsewhere, "nothing"):
        chunk = IndexedChunk(0, "alpha", hashed("alpha"))
        await corpus.index.insert(ME, "s", attachment, [chunk])
    await corpus.attach("s", "alpha of mine")
    assert texts(await corpus.found("alpha")) == ["alpha of mine"]


@pytest.mark.parametrize("wanted", ["nothing", "theirs"])
async def test_missing_and_foreign_stores_are_not_found(corpus: Corpus, wanted: str) -> None:
    """X1: with one and the same error."""
    await corpus.vector_store("theirs", OTHER)
    with pytest.raises(NotFound) as caught:
        await corpus.found("alpha", stores=["s", wanted])
    assert caught.value.message == f"Vector store with id '{wanted}' not found."


async def test_an_expired_store_is_not_found(corpus: Corpus) -> None:
    """A search keeps a store from expiring; when it has, it says so."""
    await corpus.attach("s", "alpha")
    await corpus.store.update_vector_store(ME, "s", StoreChange(expire_days=1))
    corpus.now += 0.9 * DAY
    assert texts(await corpus.found("alpha")) == ["alpha"]
    corpus.now += 0.9 * DAY
    assert texts(await corpus.found("alpha")) == ["alpha"]
    corpus.now += 1.1 * DAY
    with pytest.raises(NotFound, match="has expired"):
        await corpus.found("alpha")
