"""A real search, small and in memory: passages are found by the words that they share with a query."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Sequence
from dataclasses import dataclass, field

from engine.api.filters import matches
from engine.errors import EngineError, NotFound
from engine.file_search import FileSearch
from engine.limits import Limits
from engine.ports import StoredVectorStore
from engine.ports.search import Attributes, SearchAsked, SearchResult
from engine.ports.vector_stores import FileCounts

_WORD = re.compile(r"\w+")


@dataclass(frozen=True)
class Passage:
    """A part of a file of a vector store."""

    file_id: str
    filename: str
    text: str
    attributes: Attributes = field(default_factory=dict)


class WordSearch:
    """The vector stores of some tenants; `asked` is what was searched for.

    `gate` is awaited in the middle of each search; `broken` is raised by it.
    """

    def __init__(self) -> None:
        self.asked: list[SearchAsked] = []
        self.gate: asyncio.Event | None = None
        self.broken: EngineError | None = None
        self.given_up = 0
        self._stores: dict[tuple[str, str], list[Passage]] = {}
        self._expired: set[str] = set()

    def put(self, store: str, *passages: Passage, tenant: str = "default") -> None:
        """Put passages into a store, which is made if it is not there."""
        self._stores.setdefault((tenant, store), []).extend(passages)

    def expire(self, store: str) -> None:
        """Have a store expire."""
        self._expired.add(store)

    def remove(self, store: str, tenant: str = "default") -> None:
        """Delete a store."""
        del self._stores[tenant, store]

    def tool(self, limits: Limits) -> FileSearch:
        """Return what answers `file_search` from here."""
        return FileSearch(self, self.find, limits)

    async def find(self, tenant: str, store: str) -> StoredVectorStore | None:
        """Return a store as `VectorStoreStore.get_vector_store` does."""
        if (tenant, store) not in self._stores:
            return None
        return StoredVectorStore(
            id=store,
            created_at=0,
            name="",
            description=None,
            metadata=b"{}",
            expire_days=None,
            last_active_at=0,
            expires_at=None,
            expired=store in self._expired,
            usage_bytes=0,
            counts=FileCounts(),
        )

    async def search(self, tenant: str, asked: SearchAsked) -> Sequence[SearchResult]:
        """Return the passages with the largest shares of a query's words."""
        self.asked.append(asked)
        try:
            if self.gate is not None:
                await self.gate.wait()
        except asyncio.CancelledError:
            self.given_up += 1
            raise
        if self.broken is not None:
            raise self.broken
        found = [
            SearchResult(
                store=store,
                file_id=passage.file_id,
                filename=passage.filename,
                number=number,
                score=score,
                text=passage.text,
                attributes=passage.attributes,
            )
            for store in asked.stores
            for number, passage in enumerate(self._of(tenant, store))
            if asked.filters is None or matches(asked.filters, passage.attributes)
            if (score := _score(passage.text, asked.queries)) > 0 and score >= asked.threshold
        ]
        return sorted(found, key=lambda result: -result.score)[: asked.limit]

    def _of(self, tenant: str, store: str) -> list[Passage]:
        if (tenant, store) not in self._stores:
            raise NotFound(f"Vector store with id '{store}' not found.")
        return self._stores[tenant, store]


def _score(text: str, queries: Sequence[str]) -> float:
    return max(len(_words(text) & _words(query)) / len(_words(query) or {""}) for query in queries)


def _words(text: str) -> set[str]:
    return set(_WORD.findall(text.lower()))
