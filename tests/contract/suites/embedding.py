"""What every embedder must do; `distinguishes` where it is a real model."""

from __future__ import annotations

import math
import struct

import pytest

from engine.ports import Embedder

TEXTS = [
    "Red fish swim.",
    "",
    "Ein Fluß, 日本語, 🦊 and a \x00.",
    "word " * 2000,
    " \n\t",
    "half \ud83d",
]


def numbers(vector: bytes) -> tuple[float, ...]:
    return struct.unpack(f"<{len(vector) // 4}f", vector)


def likeness(one: bytes, other: bytes) -> float:
    return sum(a * b for a, b in zip(numbers(one), numbers(other), strict=True))


class EmbedderSuite:
    """Needs a fixture `embedder`."""

    async def test_every_text_has_a_vector_of_unit_length(self, embedder: Embedder) -> None:
        """Also an empty one, one of 10,000 characters, and any of Unicode; all of one length."""
        vectors = await embedder.embed(TEXTS, "passage")

        assert len(vectors) == len(TEXTS)
        assert len({len(vector) for vector in vectors}) == 1
        for vector in vectors:
            assert math.hypot(*numbers(vector)) == pytest.approx(1, abs=1e-5)

    async def test_no_texts_have_no_vectors(self, embedder: Embedder) -> None:
        """Not an error."""
        assert await embedder.embed([], "query") == []

    async def test_a_text_has_the_same_vector_again(self, embedder: Embedder) -> None:
        """In whatever company it comes, and after others."""
        first = await embedder.embed(TEXTS, "passage")
        again = await embedder.embed(TEXTS[::-1], "passage")
        alone = [(await embedder.embed([text], "passage"))[0] for text in TEXTS]

        for one, two, three in zip(first, again[::-1], alone, strict=True):
            assert likeness(one, two) == pytest.approx(1, abs=1e-5)
            assert likeness(one, three) == pytest.approx(1, abs=1e-5)

    async def test_vectors_come_in_the_order_of_their_texts(self, embedder: Embedder) -> None:
        """Whatever lengths they have, and however many there are."""
        texts = [f"text {number} " * (1 + number % 7) for number in range(2 * embedder.at_once + 1)]
        vectors = await embedder.embed(texts, "passage")
        (last,) = await embedder.embed(texts[-1:], "passage")

        assert len(vectors) == len(texts)
        assert likeness(vectors[-1], last) == pytest.approx(1, abs=1e-5)
        assert likeness(vectors[0], last) < 0.999

    def test_its_name_is_for_good(self, embedder: Embedder) -> None:
        """It is stored with the vectors."""
        assert embedder.model
        assert embedder.at_once >= 1


class ModelSuite:
    """What a model is for; needs a fixture `embedder`."""

    @pytest.mark.parametrize(
        ("question", "right", "wrong"),
        [
            ("How do I reset my password?", "Forgot your login? Click here.", "Cats sleep a lot."),
            ("capital of France", "Paris is its largest city.", "The invoice is due in May."),
            ("cooking rice", "Boil the grain in water.", "The engine needs new oil."),
        ],
    )
    async def test_what_means_alike_is_nearer(
        self, embedder: Embedder, question: str, right: str, wrong: str
    ) -> None:
        """Also where no word is the same."""
        (asked,) = await embedder.embed([question], "query")
        found, other = await embedder.embed([right, wrong], "passage")

        assert likeness(asked, found) > likeness(asked, other) + 0.1
