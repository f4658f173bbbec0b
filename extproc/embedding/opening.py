"""The embedding model of a worker, as the settings have it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial

from engine.ports import Embedder
from extproc.embedding.local import LocalEmbedder
from extproc.embedding.minilm import MiniLm, missing
from extproc.embedding.patience import Patience
from extproc.embedding.upstream import EmbeddingModel, UpstreamEmbedder
from extproc.envoy.endpoint import ModelEndpoint, parse_model_url
from extproc.model_client import HttpModelClient
from extproc.settings import Settings
from extproc.settings_source import SettingsError


@asynccontextmanager
async def open_embedder(settings: Settings) -> AsyncIterator[Embedder | None]:
    """Yield what makes vectors of texts, None where the settings name nothing; closed on exit.

    Nothing is asked and nothing is loaded before the first text. Raises SettingsError where packages of the
    local model are missing.
    """
    match settings.embeddings.source:
        case None:
            yield None
        case "local":
            local = _local(settings)
            try:
                yield local
            finally:
                local.close()
        case "upstream":
            async with _client(settings) as client:
                yield _upstream(settings, client)


def with_local_embeddings(settings: Settings) -> Settings:
    """Return the settings with the local model where none is named and its packages are there."""
    given = settings.embeddings.source is not None
    return settings if given or missing() else settings.having(embeddings={"source": "local"})


def _local(settings: Settings) -> LocalEmbedder:
    if gone := missing():
        raise SettingsError(
            [
                "HOLDFAST_EMBEDDINGS__SOURCE=local (embeddings.source) needs packages that are not "
                f"installed: {', '.join(gone)} (docs/embeddings.md tells how to install them)"
            ]
        )
    embeddings = settings.embeddings
    load = partial(MiniLm.load, embeddings.cache_dir, embeddings.threads)
    return LocalEmbedder(load, at_once=embeddings.batch)


def _upstream(settings: Settings, client: HttpModelClient) -> UpstreamEmbedder:
    embeddings = settings.embeddings
    model = EmbeddingModel(
        embeddings.model or "",
        embeddings.dimensions,
        embeddings.query_prefix,
        embeddings.passage_prefix,
    )
    patience = Patience(embeddings.timeout_seconds, embeddings.retries)
    return UpstreamEmbedder(client, model, batch=embeddings.batch, patience=patience)


def _client(settings: Settings) -> HttpModelClient:
    """Return the way to the server: Envoy's private listener, or where there is no Envoy its URL."""
    embeddings, model = settings.embeddings, settings.model
    # The model server's key is for nobody else.
    key = model.api_key if embeddings.url is None else embeddings.api_key
    return HttpModelClient(
        _endpoint(settings),
        trusted=model.ca_file if embeddings.url is None else embeddings.ca_file,
        connect=model.connect_seconds,
        silence=embeddings.timeout_seconds,
        api_key=None if key is None else key.get_secret_value(),
    )


def _endpoint(settings: Settings) -> ModelEndpoint:
    model = settings.model
    url = settings.embeddings.url or model.url
    if model.via == "url" and url is not None:
        return parse_model_url(url)
    return ModelEndpoint(authority="model", socket=model.socket)
