"""The operations on vector stores, and the search of one; `engine.store_files` has those on their files."""

from __future__ import annotations

from collections.abc import Callable

from engine.answers import Answer
from engine.api.json import encode
from engine.api.lists import list_object, no_parameters
from engine.api.searches import parse_search, search_page
from engine.api.store_files import Wanted
from engine.api.vector_stores import (
    parse_listing,
    parse_new_store,
    parse_store_change,
    store_object,
    store_status,
)
from engine.errors import NotFound
from engine.ids import RANDOM_BYTES
from engine.intake import Caller
from engine.ports import StoredVectorStore, VectorStoreStore
from engine.retrieval import Retrieval
from engine.rewriting import Rewriting
from engine.store_files import POLL, attach, store_not_found


class VectorStores:
    """The operations, for one store."""

    def __init__(
        self,
        store: VectorStoreStore,
        retrieval: Retrieval,
        rewriting: Rewriting,
        *,
        randomness: Callable[[int], bytes],
    ) -> None:
        self._store = store
        self._retrieval = retrieval
        self._rewriting = rewriting
        self._randomness = randomness

    async def create(self, caller: Caller, body: bytes, query: str) -> Answer:
        """`POST /v1/vector_stores`, perhaps with files; where one of these is unknown there is no store."""
        no_parameters(query)
        store_id = f"vs_{self._randomness(RANDOM_BYTES).hex()}"
        creation = parse_new_store(body, store_id)
        if not creation.file_ids:
            return _answer(await self._store.add_vector_store(caller.tenant, creation.new))
        self._retrieval.require()
        wanted = [
            Wanted(each, f"file_ids[{index}]", {}, creation.chunking)
            for index, each in enumerate(creation.file_ids)
        ]
        attached = await attach(self._store, caller.tenant, creation.new, wanted, self._randomness)
        self._retrieval.wake()
        assert attached.store is not None, "nothing was unknown"
        return _answer(attached.store)

    async def list(self, caller: Caller, query: str) -> Answer:
        """`GET /v1/vector_stores`: newest first by default."""
        asked = parse_listing(query)
        page = await self._store.list_vector_stores(
            caller.tenant,
            limit=asked.limit,
            after=asked.after,
            before=asked.before,
            order=asked.order,
        )
        ids = [store.id for store in page.stores]
        shown = list(map(store_object, page.stores))
        return Answer(200, list_object(shown, ids, has_more=page.has_more))

    async def retrieve(self, caller: Caller, wanted: str, query: str) -> Answer:
        """`GET /v1/vector_stores/{id}`."""
        no_parameters(query)
        return _answer(await self._stored(caller.tenant, wanted))

    async def update(self, caller: Caller, wanted: str, body: bytes, query: str) -> Answer:
        """`POST /v1/vector_stores/{id}`: name, metadata, expiry."""
        no_parameters(query)
        change = parse_store_change(body)
        stored = await self._store.update_vector_store(caller.tenant, wanted, change)
        if stored is None:
            raise store_not_found(wanted)
        return _answer(stored)

    async def delete(self, caller: Caller, wanted: str, query: str) -> Answer:
        """`DELETE /v1/vector_stores/{id}`; the files themselves stay."""
        no_parameters(query)
        if not await self._store.delete_vector_store(caller.tenant, wanted):
            raise store_not_found(wanted)
        shown = {"id": wanted, "object": "vector_store.deleted", "deleted": True}
        return Answer(200, encode(shown))

    async def search(self, caller: Caller, wanted: str, body: bytes, query: str) -> Answer:
        """`POST /v1/vector_stores/{id}/search`."""
        no_parameters(query)
        searching = parse_search(body)
        if (await self._stored(caller.tenant, wanted)).expired:
            raise NotFound(f"Vector store '{wanted}' has expired; its files are gone.")
        self._retrieval.require()
        queries = searching.queries
        if searching.rewrite:
            queries = await self._rewriting.rewritten(caller, queries)
        results = await self._retrieval.search.search(caller.tenant, searching.of(wanted, queries))
        return Answer(200, search_page(queries, results))

    async def _stored(self, tenant: str, wanted: str) -> StoredVectorStore:
        stored = await self._store.get_vector_store(tenant, wanted)
        if stored is None:
            raise store_not_found(wanted)
        return stored


def _answer(stored: StoredVectorStore) -> Answer:
    headers = POLL if store_status(stored) == "in_progress" else {}
    return Answer(200, store_object(stored), headers)
