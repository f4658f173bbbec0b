"""Stacks with an embedding model and an index in their Postgres."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

from tests.support.embeddings_server import EmbeddingsServer
from tests.support.scripted_model import ScriptedModel
from tests.support.stack import Sections, Stack, running_stack


def embedded_by(server: EmbeddingsServer) -> Sections:
    """Return the settings of what is embedded by a server and indexed in the stack's own Postgres."""
    return {
        "embeddings": {"source": "upstream", "model": "embedder", "url": server.url},
        "index": {"kind": "pgvector"},
    }


@asynccontextmanager
async def retrieving_stack(
    model: ScriptedModel,
    postgres: str,
    server: EmbeddingsServer,
    /,
    **sections: Mapping[str, Any],
) -> AsyncIterator[Stack]:
    """Run Envoy and two workers that can ingest and search."""
    settings = {**embedded_by(server), **sections}
    async with running_stack(model, postgres, **settings) as running:
        yield running
