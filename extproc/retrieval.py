"""Vector stores, put together: what reads documents, embeds, indexes, searches and ingests."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import msgspec

from engine.file_batches import FileBatches
from engine.file_search import FileSearch
from engine.files import Files
from engine.index_check import IndexCheck
from engine.indexing import IndexingParts
from engine.ingestion import Ingestion, IngestionLimits
from engine.ingestion_job import Endurance, IngestionParts
from engine.limits import Limits
from engine.measured_retrieval import MeasuredEmbedder, MeasuredSearch
from engine.ports import Embedder, Extraction, ModelClient, Store, VectorIndex, VectorStoreStore
from engine.ports.meters import NO_METERS, Meters
from engine.retries import RetryBudget
from engine.retrieval import Retrieval, no_retrieval
from engine.retrieval_upkeep import RetrievalUpkeep
from engine.rewriting import Rewriting
from engine.search import VectorSearch
from engine.store_files import StoreFiles
from engine.upstream.choice import Choice
from engine.vector_stores import VectorStores
from extproc.embedding.opening import open_embedder
from extproc.index import NO_INDEX, open_index
from extproc.settings import Settings
from extproc.settings_retrieval import Retrieval as RetrievalSettings

_NOTHING_EMBEDS = (
    "This gateway has no embedding model, so files can be neither put into vector stores nor searched: "
    "set HOLDFAST_EMBEDDINGS__SOURCE (embeddings.source)."
)


class RetrievalMeans(msgspec.Struct, frozen=True):
    """What makes vectors and where they are kept, or a `problem` that says which setting is missing."""

    embedder: Embedder | None = None
    index: VectorIndex | None = None
    problem: str = _NOTHING_EMBEDS


NO_RETRIEVAL = RetrievalMeans()


class RetrievalParts:
    """Those of one worker; `worker` names it in leases."""

    def __init__(
        self,
        store: Store,
        files: Files,
        extraction: Extraction,
        means: RetrievalMeans,
        settings: RetrievalSettings,
        worker: str,
        meters: Meters = NO_METERS,
    ) -> None:
        self._store = store
        self._settings = settings
        self._meters = meters
        self.retrieval = no_retrieval(means.problem)
        self.chores: Sequence[Ingestion | RetrievalUpkeep | IndexCheck] = (
            RetrievalUpkeep(store, means.index),
        )
        if means.embedder is not None:
            embedder = MeasuredEmbedder(means.embedder, meters)
            means = msgspec.structs.replace(means, embedder=embedder)
        indexing = indexing_parts(store, means, batch=settings.batch)
        if indexing is None:
            return
        parts = IngestionParts(files=files, extraction=extraction, indexing=indexing, meters=meters)
        endurance = Endurance(attempts=settings.attempts, patience=settings.patience_seconds)
        limits = IngestionLimits(
            most=settings.concurrency, lease=settings.lease_seconds, endurance=endurance
        )
        ingestion = Ingestion(parts, limits, worker)
        searching = VectorSearch(
            store, indexing.index, indexing.embedder, timeout=settings.search_seconds
        )
        search = MeasuredSearch(searching, meters)
        self.retrieval = Retrieval(search, ingestion.wake)
        self.chores = (ingestion, IndexCheck(indexing), *self.chores)

    def file_search(self, limits: Limits) -> FileSearch | None:
        """Return what answers `file_search`; None where nothing can be searched."""
        if self.retrieval.problem is not None:
            return None
        return FileSearch(self.retrieval.search, self._store.get_vector_store, limits)

    def operations(
        self, model: ModelClient, limits: Limits, choice: Choice, budget: RetryBudget
    ) -> tuple[VectorStores, StoreFiles, FileBatches]:
        """Return the operations on vector stores."""
        settings = self._settings
        rewriting = Rewriting(
            model,
            limits,
            choice,
            budget,
            model_name=settings.rewrite_model,
            timeout=settings.search_seconds,
            meters=self._meters,
        )
        store, retrieval, random = self._store, self.retrieval, os.urandom
        return (
            VectorStores(store, retrieval, rewriting, randomness=random),
            StoreFiles(store, retrieval, randomness=random, limits=limits),
            FileBatches(store, retrieval, randomness=random),
        )


def indexing_parts(
    store: VectorStoreStore, means: RetrievalMeans, *, batch: int
) -> IndexingParts | None:
    """Return what chunks are indexed with, if all of it is there."""
    if means.embedder is None or means.index is None:
        return None
    return IndexingParts(store=store, embedder=means.embedder, index=means.index, batch=batch)


@asynccontextmanager
async def open_retrieval(settings: Settings) -> AsyncIterator[RetrievalMeans]:
    """Yield what the settings name; closed on exit. Raises SettingsError."""
    async with open_embedder(settings) as embedder:
        if embedder is None:
            yield NO_RETRIEVAL
            return
        async with open_index(settings, embedder.model) as index:
            yield RetrievalMeans(embedder, index, problem=NO_INDEX)
