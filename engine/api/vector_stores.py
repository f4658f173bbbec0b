"""Vector stores as the API takes and shows them."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from engine.api import checks
from engine.api.json import encode, read_object, read_value
from engine.api.lists import query_pairs, read_count
from engine.ports import (
    AttachmentStatus,
    Chunking,
    FileCounts,
    NewVectorStore,
    Order,
    StoreChange,
    StoredVectorStore,
)

MOST_FILES = 500
"""Files that a store can be created with."""

_NAME = checks.matching(r"[^\x00]{0,256}")
_DESCRIPTION = checks.matching(r"[^\x00]{0,512}")
_ANCHOR = checks.one_of("last_active_at")
_DAYS = checks.integer(1, 365)
_ORDER = checks.one_of("asc", "desc")
_LIMIT = checks.integer(1, 100)
_STRATEGY = checks.one_of("auto", "static")
_SIZE = checks.integer(100, 4096)
_STATUS = checks.one_of("in_progress", "completed", "failed", "cancelled")
_LIST_PARAMETERS = ("after", "before", "limit", "order")


class Listing(msgspec.Struct, frozen=True):
    """Which page is asked for: newest first by default, of files alone those with a status (`filter`)."""

    limit: int = 20
    after: str | None = None
    before: str | None = None
    order: Order = "desc"
    filter: AttachmentStatus | None = None


class Creation(msgspec.Struct, frozen=True):
    """A store to be, and the files that it begins with."""

    new: NewVectorStore
    file_ids: list[str]
    chunking: Chunking


def parse_new_store(body: bytes, store_id: str) -> Creation:
    """Check the body of `POST /v1/vector_stores`, which may be empty; raises InvalidRequest.

    `chunking_strategy` is that of `file_ids`: without any it is checked, and there is nothing to cut.
    """
    known = ("name", "description", "metadata", "expires_after", "file_ids", "chunking_strategy")
    given = read_fields(body or b"{}", known)
    file_ids = read_file_ids(given["file_ids"], MOST_FILES) if "file_ids" in given else []
    described = given.get("description")
    new = NewVectorStore(
        id=store_id,
        name=str(_NAME(given.get("name", ""), "name")),
        description=None if described is None else str(_DESCRIPTION(described, "description")),
        metadata=encode(checks.metadata(given.get("metadata", {}), "metadata")),
        expire_days=_expires_after(given.get("expires_after")),
    )
    return Creation(new, file_ids, read_chunking(given.get("chunking_strategy")))


def parse_store_change(body: bytes) -> StoreChange:
    """Check the body of `POST /v1/vector_stores/{id}`; null empties what it names."""
    known = ("name", "metadata", "expires_after")
    given = read_fields(body or b"{}", known, nulls=known)
    changes: dict[str, object] = {}
    if "name" in given:
        changes["name"] = "" if given["name"] is None else _NAME(given["name"], "name")
    if "metadata" in given:
        pairs = {} if given["metadata"] is None else given["metadata"]
        changes["metadata"] = encode(checks.metadata(pairs, "metadata"))
    if "expires_after" in given:
        changes["expire_days"] = _expires_after(given["expires_after"])
    return msgspec.structs.replace(StoreChange(), **changes)


def parse_listing(query: str, *more: str) -> Listing:
    """Check the query of a list, which has the parameters of `more` too; raises InvalidRequest (rule H2)."""
    values: dict[str, object] = {}
    for name, value in query_pairs(query):
        if name not in (*_LIST_PARAMETERS, *more):
            raise checks.unknown(name, (*_LIST_PARAMETERS, *more))
        values[name] = _parameter(name, value)
    return msgspec.convert(values, Listing)


def _parameter(name: str, value: str) -> object:
    if name == "limit":
        return _LIMIT(read_count(value, name, "an integer from 1 to 100"), name)
    if name == "order":
        return _ORDER(value, name)
    if name == "filter":
        return _STATUS(value, name)
    return checks.name(value, name)


def read_fields(
    body: bytes, known: tuple[str, ...], nulls: tuple[str, ...] = ()
) -> dict[str, object]:
    """Return the fields of a body; null means absent but for `nulls`; raises InvalidRequest (H1)."""
    fields = {name: read_value(raw, name) for name, raw in read_object(body).items()}
    for name, value in fields.items():
        if name not in known and value is not None:
            raise checks.unknown(name, known)
    return {
        name: value
        for name, value in fields.items()
        if value is not None or (name in nulls and name in known)
    }


def read_file_ids(value: object, most: int) -> list[str]:
    """Return ids of files, each once; raises InvalidRequest."""
    entries = checks.array(value, "file_ids")
    if len(entries) > most:
        raise checks.wrong_value(f"{len(entries)} files", "file_ids", f"at most {most}")
    ids = [checks.name(entry, f"file_ids[{index}]") for index, entry in enumerate(entries)]
    refuse_twice(ids, "file_ids[{}]")
    return ids


def refuse_twice(file_ids: list[str], place: str) -> None:
    """Raise InvalidRequest for a file that is named twice; `place` has a {} for its index."""
    seen: set[str] = set()
    for index, file_id in enumerate(file_ids):
        if file_id in seen:
            raise checks.wrong_value(file_id, place.format(index), "each file once")
        seen.add(file_id)


def read_chunking(value: object, param: str = "chunking_strategy") -> Chunking:
    """Check how files are to be cut; None and `auto` are 800 tokens that overlap by 400."""
    if value is None:
        return Chunking()
    strategy = checks.mapping(value, param)
    kind = _STRATEGY(checks.required(strategy, "type", param), f"{param}.type")
    if kind == "auto":
        checks.only_keys(strategy, ("type",), param)
        return Chunking()
    checks.only_keys(strategy, ("type", "static"), param)
    place = f"{param}.static"
    static = checks.mapping(checks.required(strategy, "static", param), place)
    checks.only_keys(static, ("max_chunk_size_tokens", "chunk_overlap_tokens"), place)
    size = _integer(_SIZE, static, "max_chunk_size_tokens", place)
    # A chunk has to bring more than it repeats.
    return Chunking(
        size, _integer(checks.integer(0, size // 2), static, "chunk_overlap_tokens", place)
    )


def _integer(check: checks.Check, source: Mapping[str, object], name: str, param: str) -> int:
    checked = check(checks.required(source, name, param), f"{param}.{name}")
    assert isinstance(checked, int)
    return checked


def _expires_after(value: object) -> int | None:
    if value is None:
        return None
    given = checks.mapping(value, "expires_after")
    checks.only_keys(given, ("anchor", "days"), "expires_after")
    _ANCHOR(checks.required(given, "anchor", "expires_after"), "expires_after.anchor")
    return _integer(_DAYS, given, "days", "expires_after")


def store_object(store: StoredVectorStore) -> bytes:
    """Return the object that the API shows."""
    days = store.expire_days
    return encode(
        {
            "id": store.id,
            "object": "vector_store",
            "created_at": store.created_at,
            "name": store.name,
            "description": store.description,
            "usage_bytes": store.usage_bytes,
            "file_counts": counts_object(store.counts),
            "status": store_status(store),
            "expires_after": None if days is None else {"anchor": "last_active_at", "days": days},
            "expires_at": store.expires_at,
            "last_active_at": store.last_active_at,
            "metadata": msgspec.Raw(store.metadata),
        }
    )


def store_status(store: StoredVectorStore) -> str:
    """Return the API's word for how a store is."""
    if store.expired:
        return "expired"
    return "in_progress" if store.counts.in_progress else "completed"


def counts_object(counts: FileCounts) -> dict[str, int]:
    """Return the counts that the API shows."""
    numbers: dict[str, int] = msgspec.structs.asdict(counts)
    return {**numbers, "total": sum(numbers.values())}
