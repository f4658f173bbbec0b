"""A vector index in memory: every distance is worked out, and words are counted as BM25 does.

What the adapters are compared with, and what engine tests search in.
"""

from __future__ import annotations

import math
from array import array
from collections import Counter
from collections.abc import Collection, Iterator, Sequence

from engine.ports import Hit, IndexedChunk
from storage.words import asked_words, words_of

_Key = tuple[str, str, str, int]


class ExactIndex:
    """`engine.ports.VectorIndex` in a dictionary; `siblings` are those of all models, this one too."""

    def __init__(self, siblings: Collection[ExactIndex] | None = None) -> None:
        self._chunks: dict[_Key, IndexedChunk] = {}
        self._siblings = (self,) if siblings is None else siblings

    async def insert(
        self, tenant: str, store: str, attachment: str, chunks: Sequence[IndexedChunk]
    ) -> None:
        for chunk in chunks:
            self._chunks[tenant, store, attachment, chunk.number] = chunk

    async def by_vector(
        self,
        tenant: str,
        store: str,
        vector: bytes,
        *,
        limit: int,
        attachments: Collection[str] | None = None,
    ) -> list[Hit]:
        return _best(
            limit,
            (
                Hit(attachment, chunk.number, cosine(vector, chunk.vector))
                for attachment, chunk in self._of(tenant, store, attachments)
                if len(chunk.vector) == len(vector)
            ),
        )

    async def by_words(
        self,
        tenant: str,
        store: str,
        text: str,
        *,
        limit: int,
        attachments: Collection[str] | None = None,
    ) -> list[Hit]:
        asked = asked_words(text)
        counted = [
            (attachment, chunk.number, Counter(words_of(chunk.text)))
            for attachment, chunk in self._of(tenant, store, attachments)
        ]
        having = {word: sum(word in words for *_, words in counted) for word in asked}
        mean = sum(words.total() for *_, words in counted) / max(1, len(counted))

        def score(words: Counter[str]) -> float:
            length = 0.25 + 0.75 * words.total() / max(1.0, mean)
            return sum(
                math.log(1 + (len(counted) - having[word] + 0.5) / (having[word] + 0.5))
                * words[word]
                * 2.2
                / (words[word] + 1.2 * length)
                for word in asked
            )

        return _best(
            limit,
            (
                Hit(attachment, number, score(words))
                for attachment, number, words in counted
                if any(word in words for word in asked)
            ),
        )

    async def remove(self, tenant: str, store: str, attachments: Collection[str]) -> bool:
        for each in self._siblings:
            for key in list(each._chunks):
                if key[:2] == (tenant, store) and key[2] in attachments:
                    del each._chunks[key]
        return True

    async def count(self, tenant: str, store: str, attachment: str) -> int:
        return sum(key[:3] == (tenant, store, attachment) for key in self._chunks)

    async def clear(self) -> None:
        self._chunks.clear()

    def attachments(self, tenant: str, store: str) -> list[str]:
        """Return what a store has chunks of."""
        return sorted({key[2] for key in self._chunks if key[:2] == (tenant, store)})

    def _of(
        self, tenant: str, store: str, attachments: Collection[str] | None
    ) -> Iterator[tuple[str, IndexedChunk]]:
        for key, chunk in self._chunks.items():
            if key[:2] == (tenant, store) and (attachments is None or key[2] in attachments):
                yield key[2], chunk


def cosine(one: bytes, other: bytes) -> float:
    """Return the cosine of two vectors of unit length."""
    return sum(a * b for a, b in zip(array("f", one), array("f", other), strict=True))


def _best(limit: int, hits: Iterator[Hit]) -> list[Hit]:
    return sorted(hits, key=lambda hit: (-hit.score, hit.attachment, hit.number))[:limit]
