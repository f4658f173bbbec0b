"""The settings of vector stores: how files get into them, and how they are searched."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from extproc.settings_section import Seconds, Section


class Retrieval(Section):
    """Vector stores (docs/vector-stores.md). They need a model that makes vectors (`embeddings`)."""

    concurrency: int = Field(default=2, ge=0, le=256)
    """Files that each worker ingests at a time; 0 leaves them to other workers."""

    attempts: int = Field(default=10, ge=1, le=1000)
    """How often a file is tried at which something dies: its worker, or the process that reads it. The pause
    between two attempts grows to ten minutes."""

    patience_seconds: Annotated[float, Field(gt=0, le=30 * 86_400, allow_inf_nan=False)] = 86_400.0
    """How long after it was attached a file is tried again while the embedding model, the index or the store
    does not answer, or refuses the gateway; behind that it has failed."""

    lease_seconds: Seconds = 30.0
    """How long a file that is ingested belongs to its worker without renewal: so long after a worker died,
    another one goes on."""

    batch: int = Field(default=64, ge=1, le=1000)
    """Chunks of a file that are written, embedded and put into the index at a time."""

    search_seconds: Seconds = 30.0
    """Time for one search, by `POST /v1/vector_stores/{id}/search` or by `file_search`; then it is given up:
    503 `search_timeout`. Queries that a model rewrites have as much again for that."""

    rewrite_model: str | None = Field(default=None, min_length=1)
    """The model that puts queries into better words where a search asks for it (`rewrite_query`); unset: such
    searches are refused."""
