"""Searches and embeddings, counted on their way through; and how long the queues are."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from engine.chore import Chore
from engine.errors import EngineError
from engine.ports import Embedder, EmbeddingKind, Search, SearchAsked, SearchResult, Store
from engine.ports.meters import Meters

_SECONDS = 10.0
# The first status that is not the client's fault.
_OURS = 500


class MeasuredSearch:
    """A search whose meters hear of each."""

    def __init__(self, search: Search, meters: Meters) -> None:
        self._search = search
        self._meters = meters

    async def search(self, tenant: str, asked: SearchAsked) -> Sequence[SearchResult]:
        """Search, and tell how that went."""
        clock = asyncio.get_running_loop().time
        began = clock()
        try:
            found = await self._search.search(tenant, asked)
        except Exception as error:
            if _is_fault(error):
                self._meters.searched(ok=False, seconds=clock() - began)
            raise
        self._meters.searched(ok=True, seconds=clock() - began)
        return found


class MeasuredEmbedder:
    """An embedding model whose meters hear of each call."""

    def __init__(self, embedder: Embedder, meters: Meters) -> None:
        self.model = embedder.model
        self._embedder = embedder
        self._meters = meters

    @property
    def at_once(self) -> int:
        """How many texts one call should bring at most."""
        return self._embedder.at_once

    async def embed(self, texts: Sequence[str], kind: EmbeddingKind) -> list[bytes]:
        """Embed, and tell how that went."""
        clock = asyncio.get_running_loop().time
        began = clock()
        try:
            vectors = await self._embedder.embed(texts, kind)
        except Exception as error:
            if _is_fault(error):
                self._meters.embedded(ok=False, texts=len(texts), seconds=clock() - began)
            raise
        self._meters.embedded(ok=True, texts=len(texts), seconds=clock() - began)
        return vectors


def _is_fault(error: Exception) -> bool:
    """Return whether it is the gateway's or a server's, and not what was asked for."""
    return not isinstance(error, EngineError) or error.status >= _OURS


class QueueCensus:
    """Tells the meters how many responses and files wait, over all tenants, while a worker lives."""

    def __init__(self, store: Store, meters: Meters) -> None:
        self._store = store
        self._meters = meters
        self._looking = Chore(self._look, _SECONDS, jitter=0.5)

    def start(self) -> None:
        """Begin."""
        self._looking.start()

    async def stop(self) -> None:
        """End."""
        await self._looking.stop()

    async def _look(self) -> bool:
        waiting = await self._store.waiting()
        self._meters.queue_lengths(waiting.responses, waiting.files)
        return False
