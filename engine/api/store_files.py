"""Files of vector stores, and batches of them, as the API takes and shows them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec

from engine.api import checks
from engine.api.filters import parse_attributes
from engine.api.json import encode
from engine.api.vector_stores import (
    counts_object,
    read_chunking,
    read_fields,
    read_file_ids,
    refuse_twice,
)
from engine.errors import InvalidRequest
from engine.ports import (
    Attributes,
    Chunking,
    NewAttachment,
    StoredAttachment,
    StoredBatch,
)

MOST_IN_A_BATCH = 2000

_WITH = ("attributes", "chunking_strategy")


class Wanted(msgspec.Struct, frozen=True):
    """A file to be attached; `param` is where a request names it."""

    file_id: str
    param: str
    attributes: Attributes = {}
    chunking: Chunking = Chunking()

    def named(self, attachment_id: str) -> NewAttachment:
        """Return the attachment under an id."""
        return NewAttachment(
            id=attachment_id,
            file_id=self.file_id,
            attributes=self.attributes,
            chunking=self.chunking,
        )


def parse_new_file(body: bytes) -> Wanted:
    """Check the body of `POST …/files`; raises InvalidRequest."""
    given = read_fields(body, ("file_id", *_WITH))
    if "file_id" not in given:
        raise checks.missing("file_id")
    return Wanted(
        checks.name(given["file_id"], "file_id"),
        "file_id",
        _attributes(given, "attributes"),
        read_chunking(given.get("chunking_strategy")),
    )


def parse_labels(body: bytes) -> Attributes:
    """Check the body of `POST …/files/{id}`: attributes, which null removes all."""
    given = read_fields(body, ("attributes",), nulls=("attributes",))
    if "attributes" not in given:
        raise checks.missing("attributes")
    return _attributes(given, "attributes")


def parse_new_batch(body: bytes) -> list[Wanted]:
    """Check the body of `POST …/file_batches`: `file_ids` or `files`; raises InvalidRequest."""
    given = read_fields(body, ("file_ids", "files", *_WITH))
    if "files" in given:
        return _files(given)
    if "file_ids" not in given:
        raise checks.missing("file_ids")
    ids = read_file_ids(given["file_ids"], MOST_IN_A_BATCH)
    _some(ids, "file_ids")
    attributes = _attributes(given, "attributes")
    chunking = read_chunking(given.get("chunking_strategy"))
    return [Wanted(each, f"file_ids[{i}]", attributes, chunking) for i, each in enumerate(ids)]


def _files(given: Mapping[str, object]) -> list[Wanted]:
    if "file_ids" in given:
        raise InvalidRequest(
            "'file_ids' and 'files' exclude each other.", param="files", code="invalid_value"
        )
    for name in _WITH:
        if name in given:
            raise checks.unsupported(name, "with 'files', each of these has its own.")
    entries = checks.array(given["files"], "files")
    _some(entries, "files")
    wanted = [_file(entry, f"files[{index}]") for index, entry in enumerate(entries)]
    refuse_twice([each.file_id for each in wanted], "files[{}].file_id")
    return wanted


def _some(entries: Sequence[object], param: str) -> None:
    if not 1 <= len(entries) <= MOST_IN_A_BATCH:
        expected = f"from 1 to {MOST_IN_A_BATCH}"
        raise checks.wrong_value(f"{len(entries)} files", param, expected)


def _file(value: object, param: str) -> Wanted:
    entry = checks.mapping(value, param)
    checks.only_keys(entry, ("file_id", *_WITH), param)
    place = f"{param}.file_id"
    return Wanted(
        checks.name(checks.required(entry, "file_id", param), place),
        place,
        _attributes(entry, f"{param}.attributes"),
        read_chunking(entry.get("chunking_strategy"), f"{param}.chunking_strategy"),
    )


def _attributes(source: Mapping[str, object], param: str) -> Attributes:
    value = source.get("attributes")
    return {} if value is None else parse_attributes(value, param)


def file_object(file: StoredAttachment) -> bytes:
    """Return the object that the API shows: its id is the file's."""
    error = file.error
    return encode(
        {
            "id": file.file_id,
            "object": "vector_store.file",
            "created_at": file.created_at,
            "vector_store_id": file.store,
            "usage_bytes": file.usage_bytes,
            "status": file.status,
            "last_error": None if error is None else {"code": error[0], "message": error[1]},
            "attributes": file.attributes,
            "chunking_strategy": {
                "type": "static",
                "static": {
                    "max_chunk_size_tokens": file.chunking.size,
                    "chunk_overlap_tokens": file.chunking.overlap,
                },
            },
        }
    )


def batch_object(batch: StoredBatch) -> bytes:
    """Return the object that the API shows."""
    return encode(
        {
            "id": batch.id,
            "object": "vector_store.files_batch",
            "created_at": batch.created_at,
            "vector_store_id": batch.store,
            "status": batch_status(batch),
            "file_counts": counts_object(batch.counts),
        }
    )


def batch_status(batch: StoredBatch) -> str:
    """Return the API's word for how a batch is: `failed` where all of its files have."""
    if batch.cancelled:
        return "cancelled"
    if batch.counts.in_progress:
        return "in_progress"
    return "failed" if batch.counts.failed and not batch.counts.completed else "completed"


def content_page(texts: Sequence[str]) -> bytes:
    """Return a file's text, in its chunks."""
    return encode(
        {
            "object": "vector_store.file_content.page",
            "data": [{"type": "text", "text": text} for text in texts],
            "has_more": False,
            "next_page": None,
        }
    )
