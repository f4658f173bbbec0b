"""The operations on uploads: files that arrive in parts, in any order and side by side."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence

from engine.answers import Answer
from engine.api import checks
from engine.api.files import (
    Completion,
    parse_completion,
    parse_new_upload,
    part_object,
    upload_object,
)
from engine.api.lists import no_parameters
from engine.errors import Conflict, InvalidRequest, NotFound
from engine.ids import RANDOM_BYTES
from engine.intake import Caller
from engine.keeping import Keeping
from engine.limits import Limits
from engine.ports import Blob, Clock, FileStore, Form, StoredUpload

_PART = "part_"
# 8 GB in parts of a megabyte.
_MOST_PARTS = 10_000


class Uploads:
    """The operations on uploads, for one store."""

    def __init__(
        self,
        store: FileStore,
        keeping: Keeping,
        *,
        clock: Clock,
        randomness: Callable[[int], bytes],
        limits: Limits,
    ) -> None:
        self._store = store
        self._keeping = keeping
        self._clock = clock
        self._randomness = randomness
        self._limits = limits

    async def create(self, caller: Caller, body: bytes, query: str) -> Answer:
        """`POST /v1/uploads`."""
        no_parameters(query)
        new = parse_new_upload(
            body,
            self._minted("upload_"),
            most=self._limits.upload_bytes,
            open_seconds=int(self._limits.upload_seconds),
        )
        return Answer(200, upload_object(await self._store.add_upload(caller.tenant, new)))

    async def add_part(self, caller: Caller, wanted: str, form: Form, query: str) -> Answer:
        """`POST /v1/uploads/{id}/parts`: the part is there when its bytes are, whole."""
        no_parameters(query)
        upload = await self._pending(caller.tenant, wanted)
        await self._check_room(caller.tenant, upload)
        async with self._keeping.untaken(caller.tenant) as kept:
            await self._received(caller.tenant, form, kept)
            [blob] = kept
            if not await self._store.add_part(caller.tenant, wanted, blob):
                await self._keeping.drop(blob)
                await self._pending(caller.tenant, wanted)
                raise Conflict("The part took too long.", code="upload_took_too_long")
        return Answer(200, part_object(_PART + blob.key, wanted, self._clock()))

    async def _received(self, tenant: str, form: Form, kept: list[Blob]) -> None:
        """Add the bytes of the one part that a form has to `kept`; raises InvalidRequest."""
        async for part in form.parts():
            if part.name != "data":
                raise checks.unknown(part.name, ("data",))
            if kept:
                raise InvalidRequest("'data' is in the form twice.", param="data")
            most = self._limits.part_bytes
            pieces = part.pieces()
            kept.append(await self._keeping.keep(tenant, pieces, most=most, what="The part"))
        if not kept:
            raise checks.missing("data")

    async def complete(self, caller: Caller, wanted: str, body: bytes, query: str) -> Answer:
        """`POST /v1/uploads/{id}/complete`: its parts, in the order given, are a file."""
        no_parameters(query)
        asked = parse_completion(body, most=_MOST_PARTS)
        upload = await self._stored(caller.tenant, wanted)
        file_id = await self._made_before(caller.tenant, upload, asked)
        if file_id is None:
            file_id = await self._made(caller.tenant, upload, asked)
        done = await self._stored(caller.tenant, wanted)
        file = await self._store.get_file(caller.tenant, file_id)
        return Answer(200, upload_object(done, file))

    async def _made_before(
        self, tenant: str, upload: StoredUpload, asked: Completion
    ) -> str | None:
        """Return the file that an earlier request made of the same parts: its answer may have been lost."""
        if upload.file_id is None or not await self._store.get_file(tenant, upload.file_id):
            return None
        parts = await self._store.file_blobs(tenant, upload.file_id)
        if [_PART + part.key for part in parts] != list(asked.part_ids):
            return None
        await self._check_md5(parts, asked)
        return upload.file_id

    async def _made(self, tenant: str, upload: StoredUpload, asked: Completion) -> str:
        """Make the file of a pending upload; return its id."""
        if upload.status != "pending":
            raise _not_pending(upload)
        parts = await self._parts(tenant, upload, asked)
        await self._check_md5(parts, asked)
        file_id = self._minted("file-")
        keys = [part.key for part in parts]
        if not await self._store.complete_upload(tenant, upload.id, file_id, keys):
            raise _not_pending(await self._stored(tenant, upload.id))
        return file_id

    async def cancel(self, caller: Caller, wanted: str, query: str) -> Answer:
        """`POST /v1/uploads/{id}/cancel`."""
        no_parameters(query)
        await self._pending(caller.tenant, wanted)
        if not await self._store.cancel_upload(caller.tenant, wanted):
            raise _not_pending(await self._stored(caller.tenant, wanted))
        return Answer(200, upload_object(await self._stored(caller.tenant, wanted)))

    async def _parts(self, tenant: str, upload: StoredUpload, asked: Completion) -> list[Blob]:
        """Return the parts in the order asked for; raises InvalidRequest unless they are all of it."""
        there = {
            _PART + blob.key: blob for blob in await self._store.upload_parts(tenant, upload.id)
        }
        for index, part_id in enumerate(asked.part_ids):
            if part_id not in there:
                raise InvalidRequest(
                    f"Part with id '{part_id}' not found in this upload.",
                    param=f"part_ids[{index}]",
                    code="part_not_found",
                )
        parts = [there[part_id] for part_id in asked.part_ids]
        size = sum(part.size for part in parts)
        if size != upload.size:
            raise InvalidRequest(
                f"The parts have {size} bytes together; the upload was created for {upload.size}.",
                param="part_ids",
                code="upload_size_mismatch",
            )
        return parts

    async def _check_md5(self, parts: Sequence[Blob], asked: Completion) -> None:
        if asked.md5 is None:
            return
        digest = hashlib.md5(usedforsecurity=False)
        size = sum(part.size for part in parts)
        async for piece in self._keeping.read(parts, 0, size):
            digest.update(piece)
        if digest.hexdigest() != asked.md5:
            raise InvalidRequest(
                f"The MD5 of the parts is {digest.hexdigest()}.",
                param="md5",
                code="checksum_mismatch",
            )

    async def _check_room(self, tenant: str, upload: StoredUpload) -> None:
        """Bound what an upload holds: twice its size, so that parts can be sent again (rule X5)."""
        parts = await self._store.upload_parts(tenant, upload.id)
        if len(parts) >= _MOST_PARTS or sum(part.size for part in parts) >= 2 * upload.size:
            raise InvalidRequest(
                "The upload has more parts than its size allows.",
                param="data",
                code="upload_is_full",
            )

    async def _pending(self, tenant: str, wanted: str) -> StoredUpload:
        upload = await self._stored(tenant, wanted)
        if upload.status != "pending":
            raise _not_pending(upload)
        return upload

    async def _stored(self, tenant: str, wanted: str) -> StoredUpload:
        upload = await self._store.get_upload(tenant, wanted)
        if upload is None:
            raise NotFound(f"Upload with id '{wanted}' not found.")
        return upload

    def _minted(self, prefix: str) -> str:
        return prefix + self._randomness(RANDOM_BYTES).hex()


def _not_pending(upload: StoredUpload) -> InvalidRequest:
    return InvalidRequest(
        f"The upload is {upload.status}; nothing can be done with it any more.",
        code="upload_not_pending",
    )
