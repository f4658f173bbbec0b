"""What the operations on vector stores need beside the store: a search, and who ingests files."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import msgspec

from engine.errors import RetrievalUnavailable
from engine.ports import Search, SearchAsked, SearchResult


class NoSearch:
    """`engine.ports.Search` of a gateway that cannot search; `problem` says which setting is missing."""

    def __init__(self, problem: str) -> None:
        self._problem = problem

    async def search(self, tenant: str, asked: SearchAsked) -> Sequence[SearchResult]:
        """Raise RetrievalUnavailable."""
        raise RetrievalUnavailable(self._problem)


class Retrieval(msgspec.Struct, frozen=True):
    """`wake` says that files were attached; `problem` why none can be, None where they can."""

    search: Search
    wake: Callable[[], None]
    problem: str | None = None

    def require(self) -> None:
        """Raise RetrievalUnavailable where files can be neither ingested nor searched."""
        if self.problem is not None:
            raise RetrievalUnavailable(self.problem)


def no_retrieval(problem: str) -> Retrieval:
    """Return what refuses, for a reason."""
    return Retrieval(NoSearch(problem), lambda: None, problem)
