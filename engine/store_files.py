"""The operations on the files of vector stores."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from engine.answers import Answer
from engine.api.json import encode
from engine.api.lists import list_object, no_parameters
from engine.api.store_files import Wanted, content_page, file_object, parse_labels, parse_new_file
from engine.api.vector_stores import Listing, parse_listing
from engine.errors import Conflict, InvalidRequest, NotFound
from engine.ids import RANDOM_BYTES
from engine.intake import Caller
from engine.limits import Limits
from engine.ports import (
    Attached,
    AttachmentPage,
    NewVectorStore,
    StoredAttachment,
    VectorStoreStore,
)
from engine.retrieval import Retrieval

POLL: Mapping[str, str] = {"openai-poll-after-ms": "500"}
"""Tells the SDK when to ask again for what is in progress."""

_TEXTS_AT_ONCE = 200


class StoreFiles:
    """The operations, for one store."""

    def __init__(
        self,
        store: VectorStoreStore,
        retrieval: Retrieval,
        *,
        randomness: Callable[[int], bytes],
        limits: Limits,
    ) -> None:
        self._store = store
        self._retrieval = retrieval
        self._randomness = randomness
        self._limits = limits

    async def create(self, caller: Caller, store_id: str, body: bytes, query: str) -> Answer:
        """`POST /v1/vector_stores/{id}/files`: attach a file; it is ingested later."""
        no_parameters(query)
        wanted = parse_new_file(body)
        await open_store(self._store, caller.tenant, store_id)
        self._retrieval.require()
        attached = await attach(self._store, caller.tenant, store_id, [wanted], self._randomness)
        self._retrieval.wake()
        return _answer(attached.attachments[0])

    async def list(self, caller: Caller, store_id: str, query: str) -> Answer:
        """`GET /v1/vector_stores/{id}/files`: newest first by default, of one status where asked."""
        asked = parse_listing(query, "filter")
        if await self._store.get_vector_store(caller.tenant, store_id) is None:
            raise store_not_found(store_id)
        return list_answer(await list_page(self._store, caller.tenant, store_id, asked))

    async def retrieve(self, caller: Caller, store_id: str, wanted: str, query: str) -> Answer:
        """`GET /v1/vector_stores/{id}/files/{id}`."""
        no_parameters(query)
        return _answer(await self._stored(caller.tenant, store_id, wanted))

    async def update(
        self, caller: Caller, store_id: str, wanted: str, body: bytes, query: str
    ) -> Answer:
        """`POST /v1/vector_stores/{id}/files/{id}`: other attributes in place of what there are."""
        no_parameters(query)
        attributes = parse_labels(body)
        stored = await self._store.label(caller.tenant, store_id, wanted, attributes)
        if stored is None:
            raise await self._missing(caller.tenant, store_id, wanted)
        return _answer(stored)

    async def delete(self, caller: Caller, store_id: str, wanted: str, query: str) -> Answer:
        """`DELETE /v1/vector_stores/{id}/files/{id}`; the file itself stays."""
        no_parameters(query)
        if not await self._store.detach(caller.tenant, store_id, wanted):
            raise await self._missing(caller.tenant, store_id, wanted)
        shown = {"id": wanted, "object": "vector_store.file.deleted", "deleted": True}
        return Answer(200, encode(shown))

    async def content(self, caller: Caller, store_id: str, wanted: str, query: str) -> Answer:
        """`GET /v1/vector_stores/{id}/files/{id}/content`: the text of the file, in its chunks."""
        no_parameters(query)
        stored = await self._stored(caller.tenant, store_id, wanted)
        if stored.status != "completed":
            raise Conflict(f"File '{wanted}' has no text here: it is '{stored.status}'.")
        texts: list[str] = []
        left = self._limits.answer_bytes
        while some := await self._store.chunk_texts(
            caller.tenant, stored.id, after=len(texts) - 1, limit=_TEXTS_AT_ONCE
        ):
            texts += some
            left -= sum(len(text.encode("utf-8", "replace")) for text in some)
            if left < 0:
                raise InvalidRequest(
                    f"The text of '{wanted}' is over {self._limits.answer_bytes} bytes; "
                    "GET /v1/files/{id}/content has the file.",
                    code="content_too_large",
                )
        if (await self._stored(caller.tenant, store_id, wanted)).id != stored.id:
            # Attached again while it was read: what was read is the beginning of what there was.
            raise Conflict(f"File '{wanted}' was attached again meanwhile; please try again.")
        return Answer(200, content_page(texts))

    async def _stored(self, tenant: str, store_id: str, wanted: str) -> StoredAttachment:
        stored = await self._store.get_attachment(tenant, store_id, wanted)
        if stored is None:
            raise await self._missing(tenant, store_id, wanted)
        return stored

    async def _missing(self, tenant: str, store_id: str, wanted: str) -> NotFound:
        if await self._store.get_vector_store(tenant, store_id) is None:
            return store_not_found(store_id)
        return NotFound(f"File with id '{wanted}' not found in vector store '{store_id}'.")


def store_not_found(wanted: str) -> NotFound:
    """Return the one error for a store that is missing or another's (rule X1)."""
    return NotFound(f"Vector store with id '{wanted}' not found.")


async def open_store(store: VectorStoreStore, tenant: str, store_id: str) -> None:
    """Raise NotFound unless a store can be added to."""
    found = await store.get_vector_store(tenant, store_id)
    if found is None:
        raise store_not_found(store_id)
    if found.expired:
        raise NotFound(f"Vector store '{store_id}' has expired; its files are gone.")


async def attach(
    store: VectorStoreStore,
    tenant: str,
    to: str | NewVectorStore,
    wanted: Sequence[Wanted],
    randomness: Callable[[int], bytes],
    *,
    batch: str | None = None,
) -> Attached:
    """Attach files to a store, which may be new: all of it or nothing.

    Raises NotFound, and InvalidRequest for a file that is unknown (rule X1). Nothing is left to be
    done behind it that could fail: who is told of a failure does it again.
    """
    new = [each.named(f"vsf_{randomness(RANDOM_BYTES).hex()}") for each in wanted]
    attached = await store.attach(tenant, to, new, batch=batch)
    if attached is None:
        raise store_not_found(to if isinstance(to, str) else to.id)
    for each in wanted:
        if each.file_id in attached.unknown:
            raise InvalidRequest(
                f"File with id '{each.file_id}' not found.",
                param=each.param,
                code="file_not_found",
            )
    return attached


async def list_page(
    store: VectorStoreStore,
    tenant: str,
    store_id: str,
    asked: Listing,
    *,
    batch: str | None = None,
) -> AttachmentPage:
    """Return a page of the files of a store, or of one of its batches."""
    return await store.list_attachments(
        tenant,
        store_id,
        limit=asked.limit,
        after=asked.after,
        before=asked.before,
        order=asked.order,
        status=asked.filter,
        batch=batch,
    )


def list_answer(page: AttachmentPage) -> Answer:
    """Return a page as it is answered; cursors are ids of files."""
    ids = [file.file_id for file in page.attachments]
    shown = list(map(file_object, page.attachments))
    return Answer(200, list_object(shown, ids, has_more=page.has_more))


def _answer(stored: StoredAttachment) -> Answer:
    headers = POLL if stored.status == "in_progress" else {}
    return Answer(200, file_object(stored), headers)
