"""The vector index of a worker, as the settings choose it: what opens it, and what its tables need."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from engine.errors import StorageUnavailable
from engine.ports import VectorIndex
from extproc.settings import Settings
from extproc.settings_source import PREFIX, SettingsError
from storage.milvus.client import open_client
from storage.milvus.index import MilvusIndex
from storage.pgvector.index import PgvectorIndex
from storage.pgvector.migrations import ExtensionMissing, migrate_vectors
from storage.postgres.pool import open_pool

NO_INDEX = (
    "This gateway has no vector index, so files can be neither put into vector stores nor searched: "
    f"set {PREFIX}INDEX__KIND (index.kind)."
)
"""What a client is told where `open_index` gives None."""


@asynccontextmanager
async def open_index(settings: Settings, model: str) -> AsyncIterator[VectorIndex | None]:
    """Give the index for the vectors of an embedding model, closed on exit; None where there is none.

    Does not wait for its server, so that we can start before it. Raises SettingsError.
    """
    index = settings.index
    timeout = index.timeout_seconds
    if index.kind == "milvus" and index.url is not None:
        url, token = index.url.get_secret_value(), index.token
        secret = None if token is None else token.get_secret_value()
        async with open_client(
            url, token=secret, database=index.database, timeout=timeout
        ) as client:
            yield MilvusIndex(client, prefix=index.prefix, model=model)
    elif index.kind == "pgvector":
        async with open_pool(
            _conninfo(settings), min_size=1, max_size=index.pool_size, timeout=timeout
        ) as pool:
            yield PgvectorIndex(pool, model)
    else:
        yield None


async def migrate_index(settings: Settings, progress: Callable[[str], None]) -> list[str]:
    """Bring the tables of the index up to date, if it has any, and return the migrations that were applied.

    Raises SettingsError where the extension is missing, and StorageUnavailable.
    """
    if settings.index.kind != "pgvector":
        return []
    try:
        return await migrate_vectors(_conninfo(settings), progress=progress)
    except ExtensionMissing as error:
        raise SettingsError([str(error)]) from error
    except StorageUnavailable as error:
        raise StorageUnavailable(f"The vector index: {error}") from error


def _conninfo(settings: Settings) -> str:
    url = settings.index.url or settings.postgres.url
    if url is None:
        raise SettingsError(
            [f"{PREFIX}INDEX__URL (index.url) or {PREFIX}POSTGRES__URL is needed for pgvector"]
        )
    return url.get_secret_value()
