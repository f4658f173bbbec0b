"""Where vectors are looked up: Milvus, Milvus Lite, or pgvector, all behind one port.

An index answers with references alone. Texts, names and attributes are read in the store, under the tenant:
an index that is stale or wrong can lose results, and cannot show anybody what is not his (rule X1).
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Protocol

import msgspec


class IndexedChunk(msgspec.Struct, frozen=True):
    """A chunk as an index takes it; `vector` is unit length, little-endian float32."""

    number: int
    text: str
    vector: bytes


class Hit(msgspec.Struct, frozen=True):
    """A chunk that was found, by the attachment and its number there, best first.

    `score` of a search by vector is the cosine similarity, -1 to 1; of one by words it is any number that is
    larger for what is better.
    """

    attachment: str
    number: int
    score: float


class VectorIndex(Protocol):
    """Chunks by tenant and vector store, each in an attachment of a file.

    An index is opened for one embedding model, and finds vectors of that one alone. Every method raises
    IndexUnavailable, and can be repeated.
    """

    async def insert(
        self, tenant: str, store: str, attachment: str, chunks: Sequence[IndexedChunk]
    ) -> None:
        """Put chunks in, in place of what was there under their numbers; found by searches from then on."""
        ...

    async def by_vector(
        self,
        tenant: str,
        store: str,
        vector: bytes,
        *,
        limit: int,
        attachments: Collection[str] | None = None,
    ) -> list[Hit]:
        """Return the nearest chunks, best first; of some attachments alone where these are given."""
        ...

    async def by_words(
        self,
        tenant: str,
        store: str,
        text: str,
        *,
        limit: int,
        attachments: Collection[str] | None = None,
    ) -> list[Hit]:
        """Return the chunks with the words of a text, best first; any text is taken, also none at all."""
        ...

    async def remove(self, tenant: str, store: str, attachments: Collection[str]) -> bool:
        """Remove chunks of these attachments, also those that an index of another model put in.

        All of them, or so many as take no longer than any other call, whatever there is: True where none is
        left, False where it has to be asked again.
        """
        ...

    async def count(self, tenant: str, store: str, attachment: str) -> int:
        """Return how many chunks of an attachment are there."""
        ...

    async def clear(self) -> None:
        """Remove everything, of all tenants: it is about to be put in again."""
        ...
