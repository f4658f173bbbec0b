"""What every store accepts as a name, and the refusals that all stores share.

Names (tenants, ids, types, models) are index keys and Postgres `text`; payloads are bytes and free.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import msgspec

from engine.errors import Conflict, InvalidRequest, LeaseLost
from engine.ports import (
    FinishedResponse,
    IngestionLease,
    Lease,
    NewAttachment,
    NewConversation,
    NewResponse,
    StoredConnector,
    StoredItem,
)

MAX_NAME_BYTES = 512
"""Far above every id that is minted anywhere, and below what a btree entry holds (2,704 bytes)."""


class Reads(msgspec.Struct, frozen=True, kw_only=True):
    """How many bytes of stored items one read gives, whatever number of them was asked for (rule X5)."""

    page: int = 16 * 2**20
    """A page of a list; one item at least."""
    context: int = 64 * 2**20
    """What a model is sent: `engine.limits.Limits.context_bytes`."""


READS = Reads()

_NO_NAME = "-" * (MAX_NAME_BYTES + 1)


def is_text(text: str) -> bool:
    """Tell whether a store can hold this as text."""
    try:
        text.encode()
    except UnicodeEncodeError:  # a lone surrogate: JSON can spell it, UTF-8 and Postgres cannot
        return False
    return "\0" not in text


def is_name(text: str) -> bool:
    """Tell whether a store can hold this as a name."""
    return is_text(text) and len(text.encode()) <= MAX_NAME_BYTES


def wanted(text: str) -> str:
    """Return a name to look up; one that nothing has, for what could not have been stored."""
    return text if is_name(text) else _NO_NAME


def check_new(new: NewResponse) -> None:
    """Raise `InvalidRequest` if a name in an accepted request cannot be stored."""
    _check(new.model, param="model")
    _check(new.previous_response_id, param="previous_response_id")
    _check(new.conversation, param="conversation")
    _check(new.tenant or "\0", param=None)  # no tenant is not a tenant
    _check(new.id, param=None)
    _check(new.worker, param=None)
    _check(None if new.idempotency is None else new.idempotency.key, param=None)
    for answer in new.answers:
        _check(answer.id, param=f"{answer.param}.approval_request_id")
    _check_items(new.input, param="input")


def check_finished(finished: FinishedResponse) -> None:
    """Raise `InvalidRequest` if a name in an output item cannot be stored."""
    _check_items(finished.output, param=None)


def check_conversation(new: NewConversation) -> None:
    """Raise `InvalidRequest` if a name in a new conversation cannot be stored."""
    _check(new.tenant or "\0", param=None)
    _check(new.id, param=None)
    _check_items(new.items, param="items")


def check_added(items: Iterable[StoredItem]) -> None:
    """Raise `InvalidRequest` if a name in items for a conversation cannot be stored."""
    _check_items(items, param="items")


def check_connector(tenant: str, connector: StoredConnector) -> None:
    """Raise `InvalidRequest` if a name of a connector cannot be stored."""
    _check(tenant or "\0", param=None)
    _check(connector.id, param=None)
    _check(connector.label, param="server_label")


def check_file(tenant: str, *names: str) -> None:
    """Raise `InvalidRequest` if a name of a file or an upload cannot be stored."""
    _check(tenant or "\0", param=None)
    for name in names:
        _check(name, param="filename")


def check_chunks(tenant: str, *names: str) -> None:
    """Raise `InvalidRequest` if chunks cannot be stored under these names."""
    _check(tenant or "\0", param=None)
    for name in names:
        _check(name, param=None)


def label_taken(label: str) -> InvalidRequest:
    """The error for a connector whose label another one has."""
    return InvalidRequest(
        f"There is a connector with the label '{label}' already.",
        param="server_label",
        code="label_taken",
    )


def check_vector_store(tenant: str, store: str, *texts: str | None) -> None:
    """Raise `InvalidRequest` if the name or the description of a vector store cannot be stored."""
    _check(tenant or "\0", param=None)
    _check(store, param=None)
    for text, param in zip(texts, ("name", "description"), strict=False):
        if text is not None and not is_text(text):
            raise InvalidRequest("Texts must be UTF-8 without NUL characters.", param=param)


def check_attached(tenant: str, batch: str | None, new: Iterable[NewAttachment]) -> None:
    """Raise `InvalidRequest` if a name in what is to be attached cannot be stored."""
    _check(tenant or "\0", param=None)
    _check(batch, param=None)
    for each in new:
        _check(each.id, param=None)


def last_of_each(new: Sequence[NewAttachment]) -> list[NewAttachment]:
    """Return what is to be attached, each file once: of several for one file the last counts."""
    return list({each.file_id: each for each in new}.values())


def unknown_cursor(cursor: str, param: str = "after") -> InvalidRequest:
    """The error for a cursor, `after` or `before`, that is not in the list that is being paged."""
    return InvalidRequest(f"No object with id '{cursor}' found in this list.", param=param)


def too_long(size: int, most: int) -> InvalidRequest:
    """The error for items that are looked up by their ids and are more than can be sent."""
    return InvalidRequest(
        f"The items have {size} bytes; at most {most} can be sent to a model.",
        param="input",
        code="context_length_exceeded",
    )


def duplicate_response(response_id: str) -> Conflict:
    """The error for accepting a second response under an id that the tenant already has."""
    return Conflict(f"A response with id '{response_id}' already exists.")


def lost(lease: Lease) -> LeaseLost:
    """The error for a write under a lease that is no longer good."""
    return LeaseLost(f"The lease of response '{lease.response_id}' is lost.")


def ingestion_lost(lease: IngestionLease) -> LeaseLost:
    """The error for a write under a lease of an ingestion that is no longer good."""
    return LeaseLost(f"The lease of the ingestion of '{lease.attachment}' is lost.")


def name_of(worker: str) -> str:
    """Return what a worker is called in all of its lives: its name up to the last `#`."""
    name, found, _life = worker.rpartition("#")
    return name if found else worker


def _check_items(items: Iterable[StoredItem], *, param: str | None) -> None:
    for item in items:
        for name in (item.id, item.type, item.call_id):
            _check(name, param=param)


def _check(name: str | None, *, param: str | None) -> None:
    if name is not None and not is_name(name):
        raise InvalidRequest(
            f"Names must be UTF-8 without NUL characters and at most {MAX_NAME_BYTES} bytes long.",
            param=param,
        )
