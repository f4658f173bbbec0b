"""The operations on files. Their bytes flow between a client and the blob store and are never held."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable

from engine.answers import Answer
from engine.api import checks
from engine.api.files import (
    FORM_FIELDS,
    check_field,
    content_headers,
    file_object,
    new_file,
    parse_file_list,
    parse_range,
)
from engine.api.json import encode
from engine.api.lists import list_object, no_parameters
from engine.errors import Conflict, InvalidRequest, NotFound
from engine.ids import RANDOM_BYTES
from engine.intake import Caller
from engine.keeping import Keeping
from engine.limits import Limits
from engine.ports import Blob, BodyReply, FileStore, Form, FormPart, NewFile, StoredFile

_FIELD_BYTES = 1024


class Files:
    """The operations on files, for one store."""

    def __init__(
        self,
        store: FileStore,
        keeping: Keeping,
        *,
        randomness: Callable[[int], bytes],
        limits: Limits,
    ) -> None:
        self._store = store
        self._keeping = keeping
        self._randomness = randomness
        self._limits = limits

    async def create(self, caller: Caller, form: Form, query: str) -> Answer:
        """`POST /v1/files`: the file is there when its bytes are, whole (rules E6, X5)."""
        no_parameters(query)
        async with self._keeping.untaken(caller.tenant) as kept:
            new = await self._received(caller.tenant, form, kept)
            [blob] = kept
            stored = await self._store.add_file(caller.tenant, new, blob)
            if stored is None:
                await self._keeping.drop(blob)
                raise Conflict("The upload took too long.", code="upload_took_too_long")
        return Answer(200, file_object(stored))

    async def _received(self, tenant: str, form: Form, kept: list[Blob]) -> NewFile:
        """Return what a form says of its file, whose bytes are added to `kept`; raises InvalidRequest."""
        fields: dict[str, str] = {}
        filename = ""
        async for part in form.parts():
            if part.name == "file":
                if kept:
                    raise _twice("file")
                filename = _filename(part)
                kept.append(await self._kept(tenant, part))
            elif part.name not in FORM_FIELDS:
                raise checks.unknown(part.name, ("file", *FORM_FIELDS))
            elif part.name in fields:
                raise _twice(part.name)
            else:
                fields[part.name] = await _text(part)
                check_field(part.name, fields[part.name])
        if not kept:
            raise checks.missing("file")
        return new_file(f"file-{self._randomness(RANDOM_BYTES).hex()}", filename, fields)

    async def _kept(self, tenant: str, part: FormPart) -> Blob:
        most = self._limits.file_bytes
        return await self._keeping.keep(tenant, part.pieces(), most=most, what="The file")

    async def list(self, caller: Caller, query: str) -> Answer:
        """`GET /v1/files`: by creation, newest first by default."""
        asked = parse_file_list(query)
        page = await self._store.list_files(
            caller.tenant,
            limit=asked.limit,
            after=asked.after,
            order=asked.order,
            purpose=asked.purpose,
        )
        ids = [file.id for file in page.files]
        return Answer(
            200, list_object(list(map(file_object, page.files)), ids, has_more=page.has_more)
        )

    async def retrieve(self, caller: Caller, wanted: str, query: str) -> Answer:
        """`GET /v1/files/{id}`."""
        no_parameters(query)
        return Answer(200, file_object(await self._stored(caller.tenant, wanted)))

    async def delete(self, caller: Caller, wanted: str, query: str) -> Answer:
        """`DELETE /v1/files/{id}`; what a response was given of it stays with the response."""
        no_parameters(query)
        if not await self._store.delete_file(caller.tenant, wanted):
            raise _not_found(wanted)
        return Answer(200, encode({"id": wanted, "object": "file", "deleted": True}))

    async def content(self, caller: Caller, wanted: str, query: str, reply: BodyReply) -> None:
        """`GET /v1/files/{id}/content`, whole or the range that the client asks for."""
        no_parameters(query)
        file = await self._stored(caller.tenant, wanted)
        asked = parse_range(caller.byte_range, file.size)
        start, end = (0, file.size) if asked is None else asked
        blobs = await self._store.file_blobs(caller.tenant, wanted)
        pieces = self._keeping.read(blobs, start, end)
        # A store that is away shows itself before anything was said.
        piece = await anext(pieces, None)
        await reply.begin(200 if asked is None else 206, content_headers(file, asked))
        while piece is not None:
            await reply.write(piece)
            piece = await anext(pieces, None)
        self._keeping.given(end - start)
        await reply.end()

    async def open(self, tenant: str, wanted: str) -> tuple[StoredFile, AsyncIterator[bytes]]:
        """Return a file and its bytes; raises NotFound."""
        file = await self._stored(tenant, wanted)
        blobs = await self._store.file_blobs(tenant, wanted)
        return file, self._keeping.read(blobs, 0, file.size)

    async def _stored(self, tenant: str, wanted: str) -> StoredFile:
        stored = await self._store.get_file(tenant, wanted)
        if stored is None:
            raise _not_found(wanted)
        return stored


def _filename(part: FormPart) -> str:
    if not part.filename:
        raise InvalidRequest(
            "'file' must be sent as a file with a name.", param="file", code="invalid_value"
        )
    return part.filename


async def _text(part: FormPart) -> str:
    """Return a field's value; raises InvalidRequest for what is no short text."""
    value = b""
    async for piece in part.pieces():
        value += piece
        if len(value) > _FIELD_BYTES:
            raise checks.wrong_value("…", part.name, f"at most {_FIELD_BYTES} bytes")
    try:
        return value.decode()
    except UnicodeDecodeError:
        raise checks.wrong_value("…", part.name, "text in UTF-8") from None


def _twice(name: str) -> InvalidRequest:
    return InvalidRequest(f"'{name}' is in the form twice.", param=name, code="duplicate_parameter")


def _not_found(wanted: str) -> NotFound:
    return NotFound(f"File with id '{wanted}' not found.")
