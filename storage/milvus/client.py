"""The client of Milvus: each call has a deadline, and the one place where its errors become ours.

pymilvus is imported when an index is opened and not before: it brings pandas and pyarrow, 93 MB.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from importlib import import_module
from typing import Any, TypeVar

from engine.errors import IndexUnavailable

_T = TypeVar("_T")
_LOG = logging.getLogger(__name__)

_NOT_FOUND = 100
_NOT_LOADED = 101
# What Milvus and gRPC raise; a bug of ours is none of these.
_THEIRS = ("pymilvus", "grpc")
# A restarted server is reached again within a second, not after gRPC's two minutes.
_RECONNECTS = {
    "grpc.initial_reconnect_backoff_ms": 100,
    "grpc.min_reconnect_backoff_ms": 100,
    "grpc.max_reconnect_backoff_ms": 1000,
}


class CollectionGone(Exception):
    """The collection that was asked is not there any more, or not loaded."""


class MilvusClient:
    """One connection; opened by the first call, so that we can start before the server."""

    def __init__(
        self, url: str, *, token: str | None, database: str | None, timeout: float
    ) -> None:
        self._url = url
        self._token = token or ""
        self._database = database or ""
        self._timeout = timeout
        self._connected: Any = None
        self._connecting = asyncio.Lock()

    @property
    def is_lite(self) -> bool:
        """True where the server is Milvus Lite: only that is reached by a socket."""
        return self._url.startswith("unix:")

    async def call(self, work: Callable[[Any], Awaitable[_T]]) -> _T:
        """Return what `work` makes of an `AsyncMilvusClient`.

        Raises IndexUnavailable, at the deadline at the latest, and CollectionGone.
        """
        async with self.deadline():
            try:
                return await work(await self._client())
            except Exception as error:
                if not type(error).__module__.startswith(_THEIRS):
                    raise
                raise _translated(error) from error

    @asynccontextmanager
    async def deadline(self) -> AsyncIterator[None]:
        """Bound several calls, and what is waited for between them, as one: raises IndexUnavailable."""
        try:
            async with asyncio.timeout(self._timeout):
                yield
        except TimeoutError as error:
            raise IndexUnavailable("The vector index did not answer in time.") from error

    async def close(self) -> None:
        """Close the connection."""
        client, self._connected = self._connected, None
        if client is not None:
            try:
                await client.close()
            except Exception as error:  # it is of no use any more either way
                _LOG.debug("closing the client of Milvus: %s", type(error).__name__)

    async def _client(self) -> Any:
        async with self._connecting:
            if self._connected is None:
                # Half a second of work, in which the event loop would stand still.
                await asyncio.to_thread(import_module, "pymilvus")
                client = _new(self._url, self._token, self._database, self._timeout)
                try:
                    await client._connect()
                except BaseException:
                    await client.close()
                    raise
                self._connected = client
            return self._connected


@asynccontextmanager
async def open_client(
    url: str, *, token: str | None = None, database: str | None = None, timeout: float = 10.0
) -> AsyncIterator[MilvusClient]:
    """Give a client that is closed on exit; `timeout` (seconds) bounds each of its calls."""
    client = MilvusClient(url, token=token, database=database, timeout=timeout)
    try:
        yield client
    finally:
        await client.close()


def _new(url: str, token: str, database: str, timeout: float) -> Any:
    from pymilvus import AsyncMilvusClient

    # It writes a traceback for every call that fails, also for those that are expected to.
    logging.getLogger("pymilvus").setLevel(logging.CRITICAL)
    return AsyncMilvusClient(
        url,
        token=token,
        db_name=database,
        timeout=timeout,
        dedicated=True,
        grpc_options=_RECONNECTS,
    )


def _translated(error: Exception) -> Exception:
    if getattr(error, "code", None) in (_NOT_FOUND, _NOT_LOADED):
        return CollectionGone()
    # Not its message (rules P5, X4): that may repeat what was sent, the words of texts among it.
    _LOG.warning("the vector index failed: %s (code %s)", type(error).__name__, _code_of(error))
    return IndexUnavailable("The vector index is not available.")


def _code_of(error: Exception) -> object:
    """Return the number of Milvus or the name of gRPC that an error has; None without one."""
    code = getattr(error, "code", None)
    if callable(code):
        code = code()
    return getattr(code, "name", code)
