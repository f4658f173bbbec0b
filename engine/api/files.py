"""Files and uploads as the API shows and takes them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from urllib.parse import quote

import msgspec

from engine.api import checks
from engine.api.json import encode, read_object, read_value
from engine.api.lists import query_pairs, read_count
from engine.errors import InvalidRequest, RangeRefused
from engine.ports import NewFile, NewUpload, Order, StoredFile, StoredUpload

PURPOSES = ("assistants", "batch", "fine-tune", "vision", "user_data", "evals")
ID = re.compile(r"[a-z]+[_-][0-9a-f]{32}")
"""What an id of ours looks like."""

MOST_LISTED = 10_000
_PURPOSE = checks.one_of(*PURPOSES)
_ORDER = checks.one_of("asc", "desc")
_ANCHOR = checks.one_of("created_at")
_SECONDS = checks.integer(3600, 2_592_000)
_FILENAME = checks.matching(r"[^\x00]{1,255}")
_MEDIA_TYPE = checks.matching(r"[ -~]{1,255}")
_MD5 = checks.matching(r"[0-9a-fA-F]{32}")
_RANGE = re.compile(r"bytes=(\d{0,18})-(\d{0,18})")

FORM_FIELDS = ("purpose", "expires_after[anchor]", "expires_after[seconds]")
"""What the form of a new file has beside the file."""


class FileQuery(msgspec.Struct, frozen=True):
    """Which files to list: newest first by default."""

    limit: int = MOST_LISTED
    after: str | None = None
    order: Order = "desc"
    purpose: str | None = None


class Completion(msgspec.Struct, frozen=True):
    """The parts of a finished upload in order; `md5` of all of them, in small letters."""

    part_ids: list[str]
    md5: str | None


def parse_file_list(query: str) -> FileQuery:
    """Check the query of `GET /v1/files`; raises InvalidRequest (rule H2)."""
    values: dict[str, object] = {}
    for name, value in query_pairs(query):
        if name == "limit":
            wanted = f"an integer from 1 to {MOST_LISTED}"
            count = read_count(value, name, wanted)
            values[name] = checks.integer(1, MOST_LISTED)(count, name)
        elif name == "order":
            values[name] = _ORDER(value, name)
        elif name in ("after", "purpose"):
            values[name] = checks.name(value, name)
        else:
            raise checks.unknown(name, ("after", "limit", "order", "purpose"))
    return msgspec.convert(values, FileQuery)


def check_field(name: str, value: str) -> None:
    """Check a field of a new file's form as soon as it is there; raises InvalidRequest."""
    if name == "purpose":
        _PURPOSE(value, name)
    elif name == "expires_after[anchor]":
        _ANCHOR(value, name)
    else:
        wanted = "an integer from 3600 to 2592000"
        _SECONDS(read_count(value, name, wanted), name)


def new_file(file_id: str, filename: str, fields: Mapping[str, str]) -> NewFile:
    """Return the file of a form whose fields were checked; raises InvalidRequest for one that lacks."""
    if "purpose" not in fields:
        raise checks.missing("purpose")
    _, anchor, seconds = FORM_FIELDS
    if (anchor in fields) != (seconds in fields):
        raise checks.missing(seconds if anchor in fields else anchor)
    return NewFile(
        id=file_id,
        purpose=fields["purpose"],
        filename=str(_FILENAME(filename, "file")),
        keep_seconds=int(fields[seconds]) if seconds in fields else None,
    )


def parse_new_upload(body: bytes, upload_id: str, *, most: int, open_seconds: int) -> NewUpload:
    """Check the body of `POST /v1/uploads`; raises InvalidRequest."""
    given = _values(body, ("bytes", "filename", "mime_type", "purpose", "expires_after"))
    return NewUpload(
        id=upload_id,
        size=_integer(given, "bytes", 1, most),
        purpose=str(_PURPOSE(_needed(given, "purpose"), "purpose")),
        filename=str(_FILENAME(_needed(given, "filename"), "filename")),
        media_type=str(_MEDIA_TYPE(_needed(given, "mime_type"), "mime_type")),
        open_seconds=open_seconds,
        keep_seconds=_expires_after(given.get("expires_after")),
    )


def parse_completion(body: bytes, *, most: int) -> Completion:
    """Check the body of `POST /v1/uploads/{id}/complete`; raises InvalidRequest."""
    given = _values(body, ("part_ids", "md5"))
    entries = checks.array(_needed(given, "part_ids"), "part_ids")
    if not 1 <= len(entries) <= most:
        raise checks.wrong_value(f"{len(entries)} parts", "part_ids", f"from 1 to {most}")
    parts = [checks.name(entry, f"part_ids[{i}]") for i, entry in enumerate(entries)]
    if len({*parts}) < len(parts):
        raise InvalidRequest("A part can be used once.", param="part_ids", code="duplicate_part")
    md5 = given.get("md5")
    return Completion(parts, None if md5 is None else str(_MD5(md5, "md5")).lower())


def parse_range(header: str | None, size: int) -> tuple[int, int] | None:
    """Return the first byte and the one behind the last that a `Range` header asks for.

    None stands for all: there is no such header, or one of several ranges, which may be ignored. Raises
    RangeRefused for a range that the file does not have.
    """
    found = None if header is None else _RANGE.fullmatch(header.strip())
    if found is None or not any(found.groups()):
        return None
    first, last = found.groups()
    if not first:
        start, end = max(0, size - int(last)), size
    else:
        start, end = int(first), min(size, int(last) + 1) if last else size
        if last and int(last) < start:
            return None
    if start >= end:
        raise RangeRefused(size)
    return start, end


def file_object(file: StoredFile) -> bytes:
    """Return the object that the API shows."""
    return encode(
        {
            "id": file.id,
            "object": "file",
            "bytes": file.size,
            "created_at": file.created_at,
            "expires_at": file.expires_at,
            "filename": file.filename,
            "purpose": file.purpose,
            "status": "processed",
            "status_details": None,
        }
    )


def upload_object(upload: StoredUpload, file: StoredFile | None = None) -> bytes:
    """Return the object that the API shows, with the file that it became."""
    return encode(
        {
            "id": upload.id,
            "object": "upload",
            "bytes": upload.size,
            "created_at": upload.created_at,
            "expires_at": upload.expires_at,
            "filename": upload.filename,
            "purpose": upload.purpose,
            "mime_type": upload.media_type,
            "status": upload.status,
            "file": None if file is None else msgspec.Raw(file_object(file)),
        }
    )


def part_object(part_id: str, upload_id: str, created_at: int) -> bytes:
    """Return the object that the API shows."""
    shown = {"id": part_id, "object": "upload.part", "created_at": created_at}
    return encode({**shown, "upload_id": upload_id})


def content_headers(file: StoredFile, sent: tuple[int, int] | None) -> dict[str, str]:
    """Return the headers of a file's content, or of a range of it."""
    start, end = (0, file.size) if sent is None else sent
    headers = {
        "content-type": "application/octet-stream",
        "content-length": str(end - start),
        "content-disposition": f"attachment; filename*=UTF-8''{quote(file.filename, safe='')}",
        "accept-ranges": "bytes",
        "etag": f'"{file.id}"',
        # A browser shall not take it for a page.
        "x-content-type-options": "nosniff",
    }
    if sent is not None:
        headers["content-range"] = f"bytes {start}-{end - 1}/{file.size}"
    return headers


def _values(body: bytes, known: tuple[str, ...]) -> dict[str, object]:
    given = {name: read_value(raw, name) for name, raw in read_object(body).items()}
    for name, value in given.items():
        if name not in known and value is not None:
            raise checks.unknown(name, known)
    return given


def _needed(given: Mapping[str, object], name: str) -> object:
    value = given.get(name)
    if value is None:
        raise checks.missing(name)
    return value


def _integer(given: Mapping[str, object], name: str, low: int, high: int) -> int:
    value = checks.integer(low, high)(_needed(given, name), name)
    assert isinstance(value, int)
    return value


def _expires_after(value: object) -> int | None:
    if value is None:
        return None
    given = checks.mapping(value, "expires_after")
    checks.only_keys(given, ("anchor", "seconds"), "expires_after")
    _ANCHOR(checks.required(given, "anchor", "expires_after"), "expires_after.anchor")
    seconds = checks.required(given, "seconds", "expires_after")
    checked = _SECONDS(seconds, "expires_after.seconds")
    assert isinstance(checked, int)
    return checked
