"""Conversations as the API shows them, and the bodies of requests about them (rule H1)."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import msgspec

from engine.api import checks
from engine.api.items import Entry, nothing_opens, parse_items
from engine.api.json import encode, read_object, read_value
from engine.context.seals import Unseal
from engine.ids import ItemIds
from engine.ports import StoredConversation

MOST_ITEMS = 20
"""Items of one request about a conversation."""


class CreateConversation(msgspec.Struct, frozen=True):
    """A checked request: `metadata` is a JSON object."""

    metadata: bytes
    items: list[Entry]


def parse_create_conversation(
    body: bytes, ids: ItemIds, unseal: Unseal = nothing_opens
) -> CreateConversation:
    """Check `POST /v1/conversations`, whose body may be empty; raises InvalidRequest with `param`."""
    raw = read_object(body) if body.strip() else {}
    values = _values(raw, ("items", "metadata"))
    items = raw["items"] if "items" in values else None
    return CreateConversation(
        metadata=encode(checks.metadata(values.get("metadata", {}), "metadata")),
        items=[]
        if items is None
        else parse_items(items, "items", ids, most=MOST_ITEMS, unseal=unseal),
    )


def parse_update_conversation(body: bytes) -> bytes:
    """Check `POST /v1/conversations/{id}`; return the metadata as a JSON object."""
    raw = read_object(body)
    values = _values(raw, ("metadata",))
    if "metadata" not in raw:
        raise checks.missing("metadata")
    return encode(checks.metadata(values.get("metadata", {}), "metadata"))


def parse_add_items(body: bytes, ids: ItemIds, unseal: Unseal = nothing_opens) -> list[Entry]:
    """Check `POST /v1/conversations/{id}/items`, at least one item; raises InvalidRequest with `param`."""
    raw = read_object(body)
    if "items" not in _values(raw, ("items",)):
        raise checks.missing("items")
    items = parse_items(raw["items"], "items", ids, most=MOST_ITEMS, unseal=unseal)
    if not items:
        raise checks.wrong_value("[]", "items", "at least one item")
    return items


def conversation_object(stored: StoredConversation) -> bytes:
    """Return the JSON of a conversation."""
    return encode(
        {
            "id": stored.id,
            "object": "conversation",
            "created_at": stored.created_at,
            "metadata": msgspec.Raw(stored.metadata),
        }
    )


def conversation_of(value: object, param: str) -> object:
    """Check the field `conversation` of a response: an id, or an object with one."""
    if isinstance(value, str):
        return checks.name(value, param)
    if not isinstance(value, dict):
        raise checks.wrong_type(value, param, "a string or an object")
    checks.only_keys(value, ("id",), param)
    checks.name(checks.required(value, "id", param), f"{param}.id")
    return value


def _values(raw: Mapping[str, msgspec.Raw], known: Collection[str]) -> dict[str, object]:
    """Return the values that are there; null means absent."""
    values = {name: read_value(field, name) for name, field in raw.items()}
    for name, value in values.items():
        if name not in known and value is not None:
            raise checks.unknown(name, known)
    return {name: value for name, value in values.items() if value is not None}
