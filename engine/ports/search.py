"""What `file_search` and the search of vector stores are answered from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

import msgspec

AttributeValue = str | float | bool
Attributes = Mapping[str, AttributeValue]
"""What a file of a vector store is labelled with by its owner; at most 16."""


class Comparison(msgspec.Struct, frozen=True):
    """`key` compared with `value` by `type`: eq, ne, gt, gte, lt, lte; a list for `in` and `nin`."""

    type: str
    key: str
    value: AttributeValue | tuple[AttributeValue, ...]


class Compound(msgspec.Struct, frozen=True):
    """All (`and`) or some (`or`) of at least one filter."""

    type: str
    filters: tuple[Filter, ...]


Filter = Comparison | Compound


class SearchAsked(msgspec.Struct, frozen=True, kw_only=True):
    """A search, checked. `filters` is one over attributes (`engine.api.filters`).

    `weights` are those of vectors and of words; None weighs by rank alone. `ranker` "none" searches by
    vectors alone. `threshold` is compared with the score of a result.
    """

    stores: Sequence[str]
    queries: Sequence[str]
    limit: int
    filters: Filter | None = None
    threshold: float = 0.0
    ranker: str = "auto"
    weights: tuple[float, float] | None = None


class SearchResult(msgspec.Struct, frozen=True, kw_only=True):
    """A chunk that was found; `score` is 0 to 1, 1 the best there can be."""

    store: str
    file_id: str
    filename: str
    number: int
    score: float
    text: str
    attributes: Attributes


class Search(Protocol):
    """Searches vector stores."""

    async def search(self, tenant: str, asked: SearchAsked) -> Sequence[SearchResult]:
        """Return the best chunks of all these stores for all these queries, best first, each once.

        Raises NotFound for a store that the tenant does not have (rule X1) or that has expired,
        EmbeddingFailed, IndexUnavailable, StorageUnavailable, and SearchTimedOut.
        """
        ...
