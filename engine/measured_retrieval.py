"""Searches and embeddings, counted on their way through; and how long the queues are."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from engine.chore import Chore
from engine.ports import Embedder, EmbeddingKind, Search, SearchAsked, SearchResult, Store
from engine.ports.meters import Meters

_SECONDS = 10.0


class MeasuredSearch:
    """A search whose meters hear of each."""

    def __init__(self, search: Search, meters: Meters) -> None:
        self._search = search
        self._meters = meters

    async def search(self, tenant: str, asked: SearchAsked) -> Sequence[SearchResult]:
        """Search, and tell how that went."""
        clock = asyncio.get_running_loop().time
        began, ok = clock(), False
        try:
            found = await self._search.search(tenant, asked)
            ok = True
            return found
        finally:
            self._meters.searched(ok=ok, seconds=clock() - began)


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
        began, ok = clock(), False
        try:
            vectors = await self._embedder.embed(texts, kind)
            ok = True
            return vectors
        finally:
            self._meters.embedded(ok=ok, texts=len(texts), seconds=clock() - began)


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
