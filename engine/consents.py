"""The answers to requests for consent that a create request brings (rule T6, ADR 0010).

Its request is in the input too, or in the thread that the create request continues. Clients that keep the
history themselves send old answers again with each request. An answer is old where the input has the call
that was made for it, or where a model has gone on behind it and the store knows that it was taken (or nothing
of it, and it was a refusal, which has no effect). Every other answer is new.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec

from engine.api.mcp import McpTool
from engine.api.request import CreateRequest
from engine.context.owned_calls import answered_requests, refused
from engine.errors import AlreadyAnswered, InvalidRequest
from engine.ports import Answer, ApprovalStore, ReplayItem, StoredApproval, StoredItem
from engine.response.consent import (
    ApprovedCall,
    Consent,
    holds_for,
    is_sealed,
    is_sealed_for,
    unpack,
)

REQUEST, RESPONSE = "mcp_approval_request", "mcp_approval_response"
_MADE = ("function_call", "mcp_call", "reasoning")


class Consents(msgspec.Struct, frozen=True):
    """What came of the answers: calls to be made, answers to be taken, the input with the refusals told."""

    approved: tuple[ApprovedCall, ...]
    answers: tuple[Answer, ...]
    items: list[StoredItem]


class _Item(msgspec.Struct, frozen=True):
    """A request or an answer, or what tells whether a model made a message."""

    approval_request_id: str = ""
    approve: bool = False
    reason: str | None = None
    role: str = ""
    server_label: str = ""
    name: str = ""
    arguments: str = ""


def _decode(item: bytes) -> _Item:
    try:
        return _read(item)
    except msgspec.ValidationError:
        # A reference to what a model server has made of it: nothing that anybody can answer here.
        return _Item()


_read = msgspec.json.Decoder(_Item).decode


class _Asked(msgspec.Struct, frozen=True):
    """A request that is answered: where it stands in the input, if it does, and what is stored of it."""

    id: str
    place: int | None
    item: _Item | None
    stored: StoredApproval | None
    param: str

    def refuse(self, why: str, code: str, param: str | None = None) -> InvalidRequest:
        """Return the error of an answer that does not count."""
        return InvalidRequest(why, param=param or f"{self.param}.approval_request_id", code=code)


async def read_consents(
    store: ApprovalStore,
    tenant: str,
    request: CreateRequest,
    items: list[StoredItem],
    history: Sequence[ReplayItem],
    *,
    keys: tuple[bytes, ...],
    repeatable: bool,
) -> Consents:
    """Check the answers among the input items; raises InvalidRequest, AlreadyAnswered.

    `repeatable`: the request has an Idempotency-Key, and whether its answers were taken is for the store to
    say, which knows whether that was this very request.
    """
    answered = [place for place, item in enumerate(items) if item.type == RESPONSE]
    if not answered:
        return Consents((), (), items)
    stored = await store.find_approvals(tenant, [str(items[at].call_id) for at in answered])
    asked = _find(items, [at for at in answered if _is_new(items, at, stored)], history, stored)
    checking = _Checking(request, keys, repeatable)
    approved: list[ApprovedCall] = []
    told = list(items)
    for place, each in asked.items():
        answer = _decode(items[place].item)
        consent = checking.consent(each, approve=answer.approve)
        if answer.approve:
            approved.append(
                ApprovedCall(each.id, consent.label, consent.name, consent.arguments, consent.shown)
            )
        elif items[place].replay is None:
            said = refused(each.id, consent.shown, consent.arguments, answer.reason)
            told[place] = msgspec.structs.replace(items[place], replay=said)
    answers = tuple(Answer(each.id, each.param) for each in asked.values())
    return Consents(tuple(approved), answers, told)


def _is_new(items: Sequence[StoredItem], place: int, stored: Mapping[str, StoredApproval]) -> bool:
    request_id = str(items[place].call_id)
    if request_id in answered_requests(items[place:]):
        return False
    if not any(map(_is_made, items[place:])):
        return True
    known = stored.get(request_id)
    return _decode(items[place].item).approve if known is None else known.answered_by is None


def _is_made(item: StoredItem) -> bool:
    """True if a model has made it."""
    if item.type == "message":
        return _decode(item.item).role == "assistant"
    return item.type in _MADE


def _find(
    items: Sequence[StoredItem],
    places: Sequence[int],
    history: Sequence[ReplayItem],
    stored: Mapping[str, StoredApproval],
) -> dict[int, _Asked]:
    """Return the request of each answer; raises InvalidRequest where there is none, or two answers to it."""
    given = {item.call_id: place for place, item in enumerate(items) if item.type == REQUEST}
    known = {item.call_id for item in history if item.type == REQUEST}
    wanted = [str(items[place].call_id) for place in places]
    asked: dict[int, _Asked] = {}
    for place, request_id in zip(places, wanted, strict=True):
        at = given.get(request_id)
        item = None if at is None else _decode(items[at].item)
        one = _Asked(request_id, at, item, stored.get(request_id), f"input[{place}]")
        if at is None and request_id not in known:
            raise one.refuse(
                f"No approval request '{request_id}' is in the input or in what it continues.",
                "approval_request_not_found",
            )
        if wanted.count(request_id) > 1:
            raise one.refuse(
                f"The approval request '{request_id}' is answered twice.", "duplicate_approval"
            )
        asked[place] = one
    return asked


class _Checking:
    """Whether answers count for a request as it is."""

    def __init__(self, request: CreateRequest, keys: tuple[bytes, ...], repeatable: bool) -> None:
        self._servers: Mapping[str, tuple[str, McpTool]] = {
            server.server_label: (param, server) for param, server in request.servers
        }
        self._keys = keys
        self._repeatable = repeatable

    def consent(self, asked: _Asked, *, approve: bool) -> Consent:
        """Return what is answered; for an approval only if it is still what was asked for."""
        stored = asked.stored
        if stored is not None and stored.answered_by is not None and not self._repeatable:
            raise AlreadyAnswered(asked.id, asked.param)
        if stored is None or stored.request is None:
            return self._unstored(asked, approve=approve)
        consent = unpack(stored.request)
        self._compare(asked, consent)
        if approve:
            param, server = self._server(asked, consent)
            if not holds_for(consent, asked.id, server):
                raise _another_server(asked, param)
        return consent

    def _unstored(self, asked: _Asked, *, approve: bool) -> Consent:
        """Return what is asked in the input by a request that its id vouches for."""
        item = asked.item
        if item is None or not is_sealed(asked.id):
            raise asked.refuse(
                f"The approval request '{asked.id}' was not made here, or its response is deleted.",
                "approval_request_not_found",
            )
        consent = Consent(item.server_label, item.name, item.arguments, item.name)
        if approve:
            param, server = self._server(asked, consent)
            given = (consent.name, consent.arguments)
            if not is_sealed_for(asked.id, server, *given, self._keys):
                raise asked.refuse(
                    f"The approval request '{asked.id}' was not made for this call, by this server "
                    f"with these credentials ({param}).",
                    "approval_mismatch",
                )
        return consent

    def _compare(self, asked: _Asked, consent: Consent) -> None:
        item = asked.item
        if item is None or consent.concerns(item.server_label, item.name, item.arguments):
            return
        same = (item.server_label, item.name) == (consent.label, consent.name)
        raise asked.refuse(
            f"The approval request '{asked.id}' is not as it was made.",
            "approval_mismatch",
            f"input[{asked.place}]" + (".arguments" if same else ""),
        )

    def _server(self, asked: _Asked, consent: Consent) -> tuple[str, McpTool]:
        found = self._servers.get(consent.label)
        if found is None:
            raise asked.refuse(
                f"The server '{consent.label}' of the approved call is not in 'tools'.",
                "approval_server_missing",
                "tools",
            )
        param, server = found
        if server.allowed.names is not None and consent.name not in server.allowed.names:
            raise asked.refuse(
                f"The approved call is of a tool that '{param}.allowed_tools' does not allow.",
                "approval_mismatch",
                f"{param}.allowed_tools",
            )
        return found


def _another_server(asked: _Asked, param: str) -> InvalidRequest:
    return asked.refuse(
        f"The approval request '{asked.id}' was made for another URL, or with other credentials.",
        "approval_mismatch",
        f"{param}.server_url",
    )
