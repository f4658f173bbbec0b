"""What is found: the nearest by their true distances, and words of any language."""

from __future__ import annotations

import random

import pytest

from engine.ports import Hit, VectorIndex
from tests.support.exact_index import ExactIndex
from tests.support.vectors import a_chunk, random_unit, unit

DIMENSION = 32
QUESTION = unit(1, 0, 0, 0)


def _found(hits: list[Hit]) -> list[tuple[str, int]]:
    return [(hit.attachment, hit.number) for hit in hits]


async def test_what_was_put_in_is_found_best_first(index: VectorIndex, tenant: str) -> None:
    """The order is that of the cosine similarity, and the score is it."""
    chunks = [a_chunk(0, vector=unit(1, 1, 0, 0)), a_chunk(1, vector=unit(1, 0, 0, 0))]
    await index.insert(tenant, "s", "a", chunks)
    await index.insert(tenant, "s", "b", [a_chunk(0, vector=unit(-1, 0, 0, 0))])
    hits = await index.by_vector(tenant, "s", QUESTION, limit=10)
    assert _found(hits) == [("a", 1), ("a", 0), ("b", 0)]
    assert [hit.score for hit in hits] == pytest.approx([1.0, 0.5**0.5, -1.0], abs=1e-5)
    assert _found(await index.by_vector(tenant, "s", QUESTION, limit=2)) == [("a", 1), ("a", 0)]


async def test_the_nearest_are_those_of_an_exact_search(index: VectorIndex, tenant: str) -> None:
    """Recall is 1.0 over 2,000 chunks, with and without a choice of attachments."""
    chance, exact = random.Random(7), ExactIndex()
    for number in range(20):
        chunks = [a_chunk(at, vector=random_unit(chance, DIMENSION)) for at in range(100)]
        await index.insert(tenant, "s", f"file-{number}", chunks)
        await exact.insert(tenant, "s", f"file-{number}", chunks)
    for _ in range(10):
        question = random_unit(chance, DIMENSION)
        some = [f"file-{chance.randrange(25)}" for _ in range(5)]
        for among in (None, some):
            hits = await index.by_vector(tenant, "s", question, limit=20, attachments=among)
            true = await exact.by_vector(tenant, "s", question, limit=20, attachments=among)
            assert _found(hits) == _found(true)
            scores = [hit.score for hit in true]
            assert [hit.score for hit in hits] == pytest.approx(scores, abs=1e-5)


async def test_a_number_that_is_put_in_again_is_replaced(index: VectorIndex, tenant: str) -> None:
    """Inserting can be repeated (T8): what an ingestion puts in twice is there once."""
    for _ in range(3):
        await index.insert(tenant, "s", "a", [a_chunk(at, "apple") for at in range(3)])
    await index.insert(tenant, "s", "a", [a_chunk(0, "pear"), a_chunk(0, "plum", unit(0, 0, 1, 0))])
    assert await index.count(tenant, "s", "a") == 3
    assert len(await index.by_vector(tenant, "s", QUESTION, limit=100)) == 3
    assert _found(await index.by_vector(tenant, "s", unit(0, 0, 1, 0), limit=1)) == [("a", 0)]
    assert sorted(_found(await index.by_words(tenant, "s", "apple pear", limit=9))) == [
        ("a", 1),
        ("a", 2),
    ]
    assert _found(await index.by_words(tenant, "s", "plum", limit=9)) == [("a", 0)]


async def test_removed_attachments_are_found_no_more(index: VectorIndex, tenant: str) -> None:
    """All of an attachment goes, nothing else, and removing it again does nothing."""
    for name in ("a", "b", "c"):
        await index.insert(tenant, "s", name, [a_chunk(at, "apple") for at in range(3)])
    await index.insert(tenant, "other", "a", [a_chunk(0, "apple")])
    for _ in range(2):
        assert await index.remove(tenant, "s", ["a", "b", "never"])
    assert await index.remove(tenant, "s", [])
    assert {hit.attachment for hit in await index.by_vector(tenant, "s", QUESTION, limit=9)} == {
        "c"
    }
    assert {hit.attachment for hit in await index.by_words(tenant, "s", "apple", limit=9)} == {"c"}
    assert [await index.count(tenant, "s", name) for name in ("a", "b", "c")] == [0, 0, 3]
    assert await index.count(tenant, "other", "a") == 1


async def test_a_search_keeps_to_its_attachments(index: VectorIndex, tenant: str) -> None:
    """Filters by attributes reach an index as attachments: exact, be they none or ten thousand."""
    for name in ("a", "b", "c"):
        await index.insert(tenant, "s", name, [a_chunk(0, "apple"), a_chunk(1, "pear")])
    many = [f"file-{number:05}" for number in range(10_000)]
    for among, expected in (
        ([], set()),
        (["a"], {"a"}),
        (["a", "c", "unknown"], {"a", "c"}),
        ([*many, "b"], {"b"}),
        (many, set()),
        (['" or scope != "', "a"], {"a"}),
    ):
        hits = await index.by_vector(tenant, "s", QUESTION, limit=9, attachments=among)
        assert {hit.attachment for hit in hits} == expected
        hits = await index.by_words(tenant, "s", "apple", limit=9, attachments=among)
        assert {hit.attachment for hit in hits} == expected


async def test_an_empty_store_has_no_hits(index: VectorIndex, tenant: str) -> None:
    """What is not there is no error: neither a store, nor an attachment, nor vectors of that size."""
    assert await index.by_vector(tenant, "s", QUESTION, limit=5) == []
    assert await index.by_words(tenant, "s", "apple", limit=5) == []
    assert await index.count(tenant, "s", "a") == 0
    await index.remove(tenant, "s", ["a"])
    await index.insert(tenant, "s", "a", [])
    assert await index.count(tenant, "s", "a") == 0
    assert await index.by_vector(tenant, "s", random_unit(random.Random(1), 77), limit=5) == []


async def test_a_limit_may_be_larger_than_the_store(index: VectorIndex, tenant: str) -> None:
    """All there is, is returned, once."""
    await index.insert(tenant, "s", "a", [a_chunk(at, "apple") for at in range(7)])
    assert len(await index.by_vector(tenant, "s", QUESTION, limit=20_000)) == 7
    assert len(await index.by_words(tenant, "s", "apple", limit=20_000)) == 7


@pytest.mark.parametrize(
    ("question", "number"),
    [
        ("fox", 0),
        ("FOXES quick", 0),
        ("Which fox?", 0),
        ("strasse", 1),
        ("naïve café", 2),
        ("где сервер", 3),
        ("東京", 4),
        ("서울", 5),
        ("भाषा", 6),
        ("שלום", 7),
        ("مرحبا", 8),
        ("สวัสดี", 9),
        ("3.11", 10),
        ("snake_case", 11),
        ("user@example.com", 12),
    ],
)
async def test_words_of_many_languages_are_found(
    index: VectorIndex, tenant: str, question: str, number: int
) -> None:
    """Case, punctuation and the script make no difference; the chunk with the words comes first."""
    texts = [
        "The quick brown fox jumps over the lazy dog.",
        "Große Straße 12, München",
        "A naïve café-goer",
        "Сервер отвечает на вопросы. Где он стоит?",
        "私は東京都に住んでいます。",
        "서울에서 만나요",
        "हिन्दी भाषा भारत में बोली जाती है",
        "שלום עולם",
        "مرحبا بالعالم",
        "สวัสดีครับ",
        "Python 3.11 is needed",
        "a name in snake_case",
        "mail to user@example.com",
    ]
    chunks = [a_chunk(at, text) for at, text in enumerate(texts)]
    await index.insert(tenant, "s", "a", chunks)
    hits = await index.by_words(tenant, "s", question, limit=20)
    assert hits[0].number == number
    assert all(hit.score > 0 for hit in hits)


async def test_a_rare_word_counts_more_than_a_common_one(index: VectorIndex, tenant: str) -> None:
    """What all chunks have says nothing; larger scores are better, and come first."""
    chunks = [a_chunk(at, "report of the year about sales") for at in range(30)]
    chunks.append(a_chunk(30, "report of the year about giraffes"))
    await index.insert(tenant, "s", "a", chunks)
    hits = await index.by_words(tenant, "s", "the report about giraffes", limit=5)
    assert hits[0].number == 30
    assert hits[0].score > hits[1].score > 0
    assert [hit.score for hit in hits] == sorted((hit.score for hit in hits), reverse=True)


@pytest.mark.parametrize(
    "text",
    [
        "",
        " \n\t",
        "... !!! ???",
        "\0",
        "apple\0pear",
        "\ud800 apple",
        "'; drop table index_words; --",
        "apple & | ! <-> :* (",
        '"apple" -pear OR',
        "\\",
        "a" * 100_000,
        "apple " * 50_000,
        " ".join(f"word{number}" for number in range(5000)),
        "🎉🎉",
    ],
    ids=lambda text: ascii(text[:20]),
)
async def test_any_text_can_be_asked_and_put_in(index: VectorIndex, tenant: str, text: str) -> None:
    """Nothing in a text is syntax, and none is too long: what is in it is found by the same text."""
    await index.insert(tenant, "s", "a", [a_chunk(0, text), a_chunk(1, "quince")])
    assert await index.count(tenant, "s", "a") == 2
    hits = await index.by_words(tenant, "s", text, limit=5)
    assert _found(hits) in ([], [("a", 0)])
    assert bool(hits) == any(letter.isalnum() for letter in text)
    assert len(await index.by_vector(tenant, "s", QUESTION, limit=5)) == 2
