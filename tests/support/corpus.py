"""Vector stores whose files are written as texts, in the memory store and an exact index."""

from __future__ import annotations

from collections.abc import Mapping

from engine.ports import (
    AttributeValue,
    Blob,
    Chunking,
    IndexedChunk,
    NewAttachment,
    NewFile,
    NewVectorStore,
    SearchAsked,
    SearchResult,
)
from engine.search import VectorSearch
from storage.memory import MemoryStore
from tests.support.exact_index import ExactIndex
from tests.support.retrieval import HashedEmbedder, hashed

ME = "me"


class Corpus:
    """Stores whose files are written as texts, each text a chunk."""

    def __init__(self) -> None:
        self.now = 1_700_000_000.0
        self.store = MemoryStore(clock=lambda: self.now)
        self.index = ExactIndex()
        self.search = VectorSearch(self.store, self.index, HashedEmbedder())
        self._made = 0

    async def vector_store(self, name: str, tenant: str = ME) -> str:
        await self.store.add_vector_store(
            tenant, NewVectorStore(id=name, name=name, metadata=b"{}")
        )
        return name

    async def file(self, tenant: str = ME) -> str:
        self._made += 1
        file_id, key = f"file-{self._made}", f"blob{self._made}"
        await self.store.reserve_blob(tenant, key, 3600)
        new = NewFile(id=file_id, purpose="user_data", filename=f"{file_id}.txt")
        await self.store.add_file(tenant, new, Blob(key, 1, b""))
        return file_id

    async def attach(
        self,
        store: str,
        *texts: str,
        tenant: str = ME,
        file_id: str | None = None,
        **attributes: AttributeValue,
    ) -> str:
        """Attach a file with these chunks and return the attachment; its file is new by default."""
        self._made += 1
        file_id = await self.file(tenant) if file_id is None else file_id
        attachment = f"vsf_{self._made}"
        new = NewAttachment(
            id=attachment, file_id=file_id, attributes=attributes, chunking=Chunking()
        )
        await self.store.attach(tenant, store, [new])
        [claim] = await self.store.claim_ingestions("w", 60, limit=1)
        await self.store.store_chunks(claim.lease, 0, list(texts), last=True)
        chunks = [IndexedChunk(n, text, hashed(text)) for n, text in enumerate(texts)]
        await self.index.insert(tenant, store, attachment, chunks)
        await self.store.finish_ingestion(claim.lease, None)
        return attachment

    async def found(
        self, *queries: str, tenant: str = ME, limit: int = 10, **more: object
    ) -> list[SearchResult]:
        fields: Mapping[str, object] = {"stores": ["s"], **more}
        asked = SearchAsked(queries=queries, limit=limit, **fields)  # type: ignore[arg-type]
        return list(await self.search.search(tenant, asked))
