"""Embeddings without a server: the small model of the package, in threads of the worker."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TypeVar

from engine.errors import EmbeddingFailed
from engine.ports import EmbeddingKind
from extproc.embedding.minilm import MiniLm, identity, runs

_log = logging.getLogger(__name__)

T = TypeVar("T")

# One for passages, which are many, and one for a query, which somebody waits for.
_THREADS = 2


class LocalEmbedder:
    """Runs the model of `load`, which is called once, in a thread, when the first text comes.

    Most workers' texts never come: loading it takes a second, and some hundred megabytes.
    """

    def __init__(self, load: Callable[[], MiniLm], *, at_once: int) -> None:
        self.model = identity()
        self._at_once = at_once
        self._load = load
        self._loaded: MiniLm | None = None
        self._loading = asyncio.Lock()
        self._passages = asyncio.Lock()
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="embedding")

    @property
    def at_once(self) -> int:
        """How many texts one call should bring at most."""
        return self._at_once

    def close(self) -> None:
        """Take no more texts; what runs is not waited for."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def embed(self, texts: Sequence[str], kind: EmbeddingKind) -> list[bytes]:
        """Return a unit vector for each text, cut to what the model takes; raises EmbeddingFailed."""
        if not texts:
            return []
        model = await self._ready()
        if kind == "query":
            return await self._embedded(model, texts)
        async with self._passages:
            return await self._embedded(model, texts)

    async def _embedded(self, model: MiniLm, texts: Sequence[str]) -> list[bytes]:
        vectors = [b""] * len(texts)
        tokens = await self._in_thread(partial(model.tokens, texts))
        for run in runs(tokens):
            found = await self._in_thread(partial(model.run, run))
            for text, vector in zip(run, found, strict=True):
                vectors[text.place] = vector
        return vectors

    async def _ready(self) -> MiniLm:
        async with self._loading:
            if self._loaded is None:
                self._loaded = await self._in_thread(self._load, failing="cannot be loaded")
            return self._loaded

    async def _in_thread(self, work: Callable[[], T], failing: str = "failed") -> T:
        try:
            return await asyncio.get_running_loop().run_in_executor(self._threads, work)
        except Exception as error:  # each of its libraries has errors of its own
            _log.error("the local embedding model %s: %s: %s", failing, type(error).__name__, error)
            raise EmbeddingFailed(f"The local embedding model {failing}.") from error
