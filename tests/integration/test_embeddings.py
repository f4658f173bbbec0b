"""Embeddings through a real Envoy: which server is asked, how often, and with which key (promise 5)."""

from __future__ import annotations

import os
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from engine.errors import EmbeddingFailed
from engine.ports import Embedder
from extproc.embedding.opening import open_embedder
from extproc.settings import Settings
from extproc.up.envoy import envoy_command
from extproc.up.processes import running
from tests.support.certificates import Authority
from tests.support.embeddings_server import Cut, EmbeddingsServer, Fault
from tests.support.scripted_model import ScriptedModel
from tests.support.stack import short_directory


@asynccontextmanager
async def embedding(model_url: str, **given: Any) -> AsyncIterator[Embedder]:
    """An embedder of a worker beside an Envoy."""
    with short_directory() as directory:
        settings = Settings(data_dir=directory).having(
            listen={"port": 0},
            model={"url": model_url, "api_key": "sk-model"},
            embeddings={"source": "upstream", "model": "bge-m3", **given},
        )
        settings.sidecar.run_dir.mkdir()
        async with (
            running([envoy_command(settings, os.environ)], lambda line: None),
            open_embedder(settings) as embedder,
        ):
            assert embedder is not None
            yield embedder


async def test_an_embedding_model_among_the_model_servers_is_asked() -> None:
    """Promise 5: through the model listener, below the model server's path, with its key."""
    async with EmbeddingsServer(base="/base") as server, embedding(server.url) as embedder:
        vectors = await embedder.embed(["red", "blue"], "passage")

    (request,) = server.requests
    assert len(vectors) == 2
    assert request.headers["authorization"] == "Bearer sk-model"
    assert "x-holdfast-once" not in request.headers


@pytest.mark.parametrize("tls", [False, True], ids=["http", "https"])
async def test_a_server_of_its_own_is_asked(
    tls: bool, model: ScriptedModel, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """X4: with its own key, below its own path, and verified; the model server hears nothing."""
    given: dict[str, Any] = {"api_key": "sk-own"}
    context: ssl.SSLContext | None = None
    if tls:
        authority = Authority(tmp_path_factory.mktemp("tls"))
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(*authority.server())
        given["ca_file"] = authority.file
    async with (
        EmbeddingsServer(base="/base", tls=context) as server,
        embedding(model.url, url=server.url, **given) as embedder,
    ):
        vectors = await embedder.embed(["red", "blue"], "passage")

    (request,) = server.requests
    assert len(vectors) == 2
    assert request.headers["authorization"] == "Bearer sk-own"
    assert request.headers["host"] == server.url.split("/")[2]
    assert model.requests == []


@pytest.mark.parametrize("own", [False, True], ids=["model-server", "own-server"])
@pytest.mark.parametrize("step", [Fault(503), Fault(500), Fault(429, retry_after=0), Cut()])
async def test_each_attempt_is_counted_once(own: bool, step: Any, model: ScriptedModel) -> None:
    """Promise 5: Envoy does not multiply what the sidecar tries again."""
    async with EmbeddingsServer() as server:
        url, given = (model.url, {"url": server.url}) if own else (server.url, {})
        async with embedding(url, retries=1, **given) as embedder:
            server.script(step)
            await embedder.embed(["x"], "query")
            again = len(server.requests)
            server.script(step, step)
            with pytest.raises(EmbeddingFailed) as failed:
                await embedder.embed(["x"], "query")

    assert (again, len(server.requests)) == (2, 4)
    assert failed.value.passing


async def test_a_server_that_is_away_may_come_back() -> None:
    """An error that passes, in words that say what is away."""
    with short_directory() as directory:
        url = f"unix:{directory}/nobody.sock"
        async with embedding(url, url=url, retries=0) as embedder:
            with pytest.raises(EmbeddingFailed, match=r"503.*did not answer") as failed:
                await embedder.embed(["x"], "query")

    assert failed.value.passing
