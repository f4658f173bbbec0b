"""Stacks with an embedding model and an index in their Postgres."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import pytest

from extproc.cli import run
from tests.support.embeddings_server import EmbeddingsServer
from tests.support.scripted_model import ScriptedModel
from tests.support.stack import Sections, Stack, eventually, running_stack


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


async def killed_lite(stack: Stack) -> None:
    """End a stack's Milvus Lite with SIGKILL; returns when another one is being started."""
    pid = stack.lite()
    os.kill(pid, signal.SIGKILL)

    def another() -> bool:
        try:
            return stack.lite() != pid
        except LookupError:
            return False

    await eventually(another)


async def reindexed(
    stack: Stack, server: EmbeddingsServer, *more: str, model: str = "embedder"
) -> tuple[int, str]:
    """Run `holdfast reindex` as an operator does; return its status and its last line."""
    settings = stack.settings
    assert settings.postgres.url is not None
    environ = {
        "HOLDFAST_DATA_DIR": str(settings.data_dir),
        "HOLDFAST_POSTGRES__URL": settings.postgres.url.get_secret_value(),
        "HOLDFAST_EMBEDDINGS__SOURCE": "upstream",
        "HOLDFAST_EMBEDDINGS__MODEL": model,
        "HOLDFAST_EMBEDDINGS__URL": server.url,
    }
    if settings.index.kind == "pgvector":
        environ["HOLDFAST_INDEX__KIND"] = "pgvector"
    lines: list[str] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("extproc.cli.say", lines.append)
        status = await asyncio.to_thread(run, ["reindex", *more], environ)
    return status, lines[-1]
