"""The operations on files that are attached to a vector store together."""

from __future__ import annotations

from collections.abc import Callable

from engine.answers import Answer
from engine.api.lists import no_parameters
from engine.api.store_files import batch_object, batch_status, parse_new_batch
from engine.api.vector_stores import parse_listing
from engine.errors import NotFound
from engine.ids import RANDOM_BYTES
from engine.intake import Caller
from engine.ports import StoredBatch, VectorStoreStore
from engine.retrieval import Retrieval
from engine.store_files import (
    POLL,
    attach,
    list_answer,
    list_page,
    open_store,
    store_not_found,
)


class FileBatches:
    """The operations, for one store."""

    def __init__(
        self,
        store: VectorStoreStore,
        retrieval: Retrieval,
        *,
        randomness: Callable[[int], bytes],
    ) -> None:
        self._store = store
        self._retrieval = retrieval
        self._randomness = randomness

    async def create(self, caller: Caller, store_id: str, body: bytes, query: str) -> Answer:
        """`POST /v1/vector_stores/{id}/file_batches`: all of its files are attached, or none."""
        no_parameters(query)
        wanted = parse_new_batch(body)
        await open_store(self._store, caller.tenant, store_id)
        self._retrieval.require()
        batch = f"vsfb_{self._randomness(RANDOM_BYTES).hex()}"
        attached = await attach(
            self._store, caller.tenant, store_id, wanted, self._randomness, batch=batch
        )
        self._retrieval.wake()
        assert attached.batch is not None, "one was named"
        return _answer(attached.batch)

    async def retrieve(self, caller: Caller, store_id: str, wanted: str, query: str) -> Answer:
        """`GET /v1/vector_stores/{id}/file_batches/{id}`."""
        no_parameters(query)
        return _answer(await self._stored(caller.tenant, store_id, wanted))

    async def cancel(self, caller: Caller, store_id: str, wanted: str, query: str) -> Answer:
        """`POST /v1/vector_stores/{id}/file_batches/{id}/cancel`: what is done stays."""
        no_parameters(query)
        batch = await self._store.cancel_batch(caller.tenant, store_id, wanted)
        if batch is None:
            raise await self._missing(caller.tenant, store_id, wanted)
        return _answer(batch)

    async def list_files(self, caller: Caller, store_id: str, wanted: str, query: str) -> Answer:
        """`GET /v1/vector_stores/{id}/file_batches/{id}/files`."""
        asked = parse_listing(query, "filter")
        await self._stored(caller.tenant, store_id, wanted)
        page = await list_page(self._store, caller.tenant, store_id, asked, batch=wanted)
        return list_answer(page)

    async def _stored(self, tenant: str, store_id: str, wanted: str) -> StoredBatch:
        batch = await self._store.get_batch(tenant, store_id, wanted)
        if batch is None:
            raise await self._missing(tenant, store_id, wanted)
        return batch

    async def _missing(self, tenant: str, store_id: str, wanted: str) -> NotFound:
        if await self._store.get_vector_store(tenant, store_id) is None:
            return store_not_found(store_id)
        return NotFound(f"Batch with id '{wanted}' not found in vector store '{store_id}'.")


def _answer(batch: StoredBatch) -> Answer:
    headers = POLL if batch_status(batch) == "in_progress" else {}
    return Answer(200, batch_object(batch), headers)
