"""`file_search` as a provider of tools: a request's stores, searched for what the model asks (T8)."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence

import msgspec

from engine.api.file_search import DEFINITION, FileSearchTool, read_queries
from engine.api.json import encode
from engine.errors import EngineError, NotFound
from engine.limits import Limits
from engine.ports import ToolDefinition, ToolOutcome
from engine.ports.search import Search, SearchResult
from engine.ports.vector_stores import StoredVectorStore

_log = logging.getLogger(__name__)

FindStore = Callable[[str, str], Awaitable[StoredVectorStore | None]]
"""Returns a tenant's vector store by its id, or None; raises StorageUnavailable."""

# The item of such a call has no place for what went wrong: this only says that something did.
_FAILED = b"null"


class FileSearch:
    """Opens the provider of a request."""

    def __init__(self, search: Search, find: FindStore, limits: Limits) -> None:
        self._search = search
        self._find = find
        self._limits = limits

    async def check(self, tool: FileSearchTool, param: str, tenant: str) -> None:
        """Refuse stores that are not there: raises NotFound, the same for those of others (rule X1)."""
        for index, store in enumerate(tool.stores):
            found = await self._find(tenant, store)
            if found is not None and not found.expired:
                continue
            problem = "has expired." if found is not None else "not found."
            missing = NotFound(f"Vector store with id '{store}' {problem}")
            missing.param = f"{param}.vector_store_ids[{index}]"
            raise missing

    def open(self, tool: FileSearchTool, tenant: str) -> FileSearchProvider:
        """Return the provider of one declaration."""
        return FileSearchProvider(self._search, tool, tenant, self._limits)


class FileSearchProvider:
    """Searches for one run."""

    def __init__(self, search: Search, tool: FileSearchTool, tenant: str, limits: Limits) -> None:
        self.label = tool.server_label
        self._search = search
        self._tool = tool
        self._tenant = tenant
        self._limits = limits

    async def definitions(self, *, timeout: float) -> Sequence[ToolDefinition]:
        """Return the one tool."""
        return [DEFINITION]

    async def call(self, name: str, arguments: bytes, *, timeout: float) -> ToolOutcome:
        """Search for what the model asks; every failure is an outcome (rule T2)."""
        try:
            queries = read_queries(arguments.decode())
        except ValueError as error:
            return _failed(f"The search was not made. {error}")
        asked = self._tool.asked(queries, self._limits.search_results)
        try:
            async with asyncio.timeout(timeout):
                found = await self._search.search(self._tenant, asked)
        except TimeoutError:
            return _failed(f"The search took longer than {timeout:g} seconds.")
        except EngineError as error:
            # Without its message: a server's repeats what it was sent (rule P5).
            _log.warning("a search failed: %s (%s)", type(error).__name__, error.code)
            return _failed(f"The search failed: {error.message}")
        kept = within(found, self._limits.search_bytes)
        return ToolOutcome(text="", fields=(("results", encode(list(map(_shown, kept)))),))


def within(results: Sequence[SearchResult], most: int) -> list[SearchResult]:
    """Return the best of the results whose texts have at most so many bytes; of the first its beginning."""
    kept: list[SearchResult] = []
    for result in results:
        size = len(result.text.encode("utf-8", "replace"))
        if size > most and kept:
            break
        if size > most:
            text = result.text.encode("utf-8", "replace")[:most].decode("utf-8", "ignore")
            result = msgspec.structs.replace(result, text=text)
        most -= size
        kept.append(result)
        if most <= 0:
            break
    return kept


def _shown(result: SearchResult) -> dict[str, object]:
    return {
        "attributes": dict(result.attributes),
        "file_id": result.file_id,
        "filename": result.filename,
        "score": result.score,
        "text": result.text,
    }


def _failed(why: str) -> ToolOutcome:
    return ToolOutcome(text=why, error=_FAILED)
