"""The queue of ingestions in memory, and the chunks that they make."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence

from engine.ports import (
    ChunkCount,
    IngestionClaim,
    IngestionErrorCode,
    IngestionLease,
    Removal,
    StoredChunk,
)
from storage.limits import ingestion_lost
from storage.memory.vector_records import Attachment, Chunk, Ingestion, Leftover, Owner


class MemoryIngestions:
    """The part of `engine.ports.VectorStoreStore` that ingestion and the index need."""

    _clock: Callable[[], float]

    def __init__(self) -> None:
        self._owners: dict[str, Owner] = {}
        self._leftovers: dict[tuple[str, str], Leftover] = {}

    async def claim_ingestions(
        self, worker: str, lease_seconds: float, *, limit: int
    ) -> list[IngestionClaim]:
        """Take what was left, then what waits, of the tenant that has the fewest at work first."""
        now = self._clock()
        left = [each for each in self._queued() if each[2].owner and each[2].expires <= now]
        left.sort(key=lambda each: each[2].expires)
        chosen = [*left, *self._waiting()][:limit]
        return [_take(*each, worker, now + lease_seconds) for each in chosen]

    async def renew_ingestions(
        self, leases: Sequence[IngestionLease], lease_seconds: float
    ) -> list[IngestionLease]:
        """Prolong leases; return those that are lost: taken over, cancelled, detached."""
        lost = []
        for lease in leases:
            held = self._leased(lease)
            if held is None:
                lost.append(lease)
            else:
                held[1].expires = self._clock() + lease_seconds
        return lost

    async def store_chunks(
        self, lease: IngestionLease, first: int, chunks: Sequence[str], *, last: bool
    ) -> None:
        """Write chunks from the number `first` on, in place of all from there; raises `LeaseLost`."""
        held = self._leased(lease)
        if held is None:
            raise ingestion_lost(lease)
        kept = {number: chunk for number, chunk in held[0].chunks.items() if number < first}
        new = {first + n: Chunk(text) for n, text in enumerate(chunks)}
        held[0].chunks, held[0].chunked = kept | new, last

    async def chunks(
        self, tenant: str, attachment: str, *, model: str, after: int, limit: int
    ) -> list[StoredChunk]:
        """Return chunks numbered above `after` with their vectors by `model`."""
        found = self._owner(tenant).attachments.get(attachment)
        chunks = sorted((found.chunks if found else {}).items())
        return [
            StoredChunk(
                number=number, text=each.text, vector=each.vector if each.model == model else None
            )
            for number, each in chunks
            if number > after
        ][:limit]

    async def chunk_count(self, tenant: str, attachment: str, *, model: str) -> ChunkCount:
        """Return how many chunks there are."""
        found = self._owner(tenant).attachments.get(attachment)
        chunks = found.chunks.values() if found else ()
        return ChunkCount(len(chunks), sum(each.model == model for each in chunks))

    async def store_vectors(
        self, tenant: str, attachment: str, *, model: str, vectors: Sequence[tuple[int, bytes]]
    ) -> None:
        """Keep the vectors of chunks, by number, in place of what they had; of chunks that are gone none."""
        found = self._owner(tenant).attachments.get(attachment)
        for number, vector in vectors if found else ():
            if found is not None and (chunk := found.chunks.get(number)) is not None:
                chunk.model, chunk.vector = model, vector

    async def finish_ingestion(
        self, lease: IngestionLease, error: tuple[IngestionErrorCode, str] | None
    ) -> None:
        """End it as completed, or as failed with what is wrong; raises `LeaseLost`."""
        held = self._leased(lease)
        if held is None:
            known = self._owner(lease.tenant).attachments.get(lease.attachment)
            if known is not None and known.finished_by == lease.token:
                return
            raise ingestion_lost(lease)
        attachment, ingestion = held
        attachment.ingestion, attachment.finished_by = None, lease.token
        attachment.status, attachment.error = "failed" if error else "completed", error
        if error is None:
            attachment.usage_bytes = sum(chunk.size for chunk in attachment.chunks.values())
        else:
            self._note_removal(lease.tenant, attachment, ingestion)

    async def put_back_ingestion(
        self, lease: IngestionLease, *, seconds: float, counts: bool = False
    ) -> None:
        """Put it back into the queue, to be taken after so many seconds; no-op if the lease is lost."""
        if (held := self._leased(lease)) is not None:
            attachment, ingestion = held
            attachment.late_until = max(attachment.late_until, ingestion.expires)
            ingestion.owner = None
            ingestion.token += 1  # whoever had it has it no longer
            if seconds > 0:
                ingestion.not_before = self._clock() + seconds
            if not counts:
                ingestion.attempts -= 1

    async def removals(self, *, limit: int) -> list[Removal]:
        """Return attachments that are gone, of all tenants, and that nobody puts into the index any more."""
        now = self._clock()
        return [each.removal for each in self._leftovers.values() if each.ready <= now][:limit]

    async def forget_removals(self, tenant: str, attachments: Sequence[str]) -> None:
        """Forget those that were removed from the index."""
        now = self._clock()
        for attachment in attachments:
            noted = self._leftovers.get((tenant, attachment))
            if noted is not None and noted.ready <= now:
                del self._leftovers[(tenant, attachment)]

    async def drop_chunks(self) -> bool:
        """Do nothing: here chunks go at once."""
        return False

    async def completed_attachments(
        self, *, after: tuple[str, str] | None, limit: int
    ) -> list[Removal]:
        """Return completed attachments of all tenants by tenant and attachment, those behind `after`."""
        found = sorted(
            (tenant, each.id, each.store)
            for tenant, owner in self._owners.items()
            for each in owner.attachments.values()
            if each.status == "completed" and (after is None or (tenant, each.id) > after)
        )
        return [Removal(tenant, store, attachment) for tenant, attachment, store in found[:limit]]

    def _note_removal(
        self, tenant: str, attachment: Attachment, ingestion: Ingestion | None
    ) -> None:
        """Drop the chunks; the index is cleared of them when nobody is at work on them any longer."""
        attachment.chunks, attachment.usage_bytes = {}, 0
        ready = ingestion.expires if ingestion is not None and ingestion.owner else self._clock()
        ready = max(ready, attachment.late_until)
        place = (tenant, attachment.id)
        if (noted := self._leftovers.get(place)) is not None:
            ready = max(ready, noted.ready)
        removal = Removal(tenant, attachment.store, attachment.id)
        self._leftovers[place] = Leftover(removal, ready)

    def _owner(self, tenant: str) -> Owner:
        return self._owners.get(tenant, Owner())

    def _leased(self, lease: IngestionLease) -> tuple[Attachment, Ingestion] | None:
        found = self._owner(lease.tenant).attachments.get(lease.attachment)
        ingestion = None if found is None else found.ingestion
        if found is None or ingestion is None or not ingestion.owner:
            return None
        return (found, ingestion) if ingestion.token == lease.token else None

    def _queued(self) -> Iterator[tuple[str, Attachment, Ingestion]]:
        for tenant, owner in self._owners.items():
            for each in owner.attachments.values():
                if each.ingestion is not None:
                    yield tenant, each, each.ingestion

    def _waiting(self) -> list[tuple[str, Attachment, Ingestion]]:
        """Return what waits, in the order in which it is handed out: no tenant before its turn."""
        now = self._clock()
        queued = list(self._queued())
        load = Counter(tenant for tenant, _, each in queued if each.owner)
        waiting = [each for each in queued if not each[2].owner and each[2].not_before <= now]
        waiting.sort(key=lambda each: (each[2].not_before, each[2].number))
        places = []
        for each in waiting:
            load[each[0]] += 1
            places.append((load[each[0]], each[2].not_before, each[2].number, each))
        places.sort(key=lambda place: place[:3])
        return [each for *_, each in places]


def _take(
    tenant: str, attachment: Attachment, ingestion: Ingestion, worker: str, expires: float
) -> IngestionClaim:
    """Hand an ingestion to a worker; whoever had it before is fenced off."""
    ingestion.owner, ingestion.expires = worker, expires
    ingestion.token += 1
    ingestion.attempts += 1
    return IngestionClaim(
        lease=IngestionLease(tenant, attachment.id, ingestion.token),
        store=attachment.store,
        file_id=attachment.file_id,
        chunking=attachment.chunking,
        attempts=ingestion.attempts,
        chunked=attachment.chunked,
    )
