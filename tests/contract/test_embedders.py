"""Both embedders pass one suite."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from engine.ports import Embedder
from extproc.embedding.local import LocalEmbedder
from extproc.embedding.minilm import MiniLm
from extproc.embedding.opening import open_embedder
from extproc.settings import Settings
from tests.contract.suites.embedding import EmbedderSuite, ModelSuite
from tests.support.embeddings_server import EmbeddingsServer


class TestLocal(EmbedderSuite, ModelSuite):
    """all-MiniLM-L6-v2 in this process."""

    @pytest.fixture
    def embedder(self, minilm: MiniLm) -> Embedder:
        return LocalEmbedder(lambda: minilm, at_once=8)


class TestUpstream(EmbedderSuite):
    """A server on the wire, which takes 100 words of a text."""

    @pytest.fixture
    async def embedder(self) -> AsyncIterator[Embedder]:
        async with EmbeddingsServer(longest=100) as server:
            settings = Settings().having(
                model={"via": "url", "url": server.url},
                embeddings={"source": "upstream", "model": "m", "batch": 8},
            )
            async with open_embedder(settings) as embedder:
                assert embedder is not None
                yield embedder
