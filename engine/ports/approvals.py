"""Consent to calls of tools: what was asked for, and which response took the answer (rule T6)."""

from __future__ import annotations

from typing import Protocol

import msgspec


class AskedApproval(msgspec.Struct, frozen=True):
    """A request for consent, by the id of its item; `request` is the engine's own JSON of what it is for."""

    id: str
    request: bytes


class Answer(msgspec.Struct, frozen=True):
    """An answer to the request `id`; `param` is its place in the client's request, for errors."""

    id: str
    param: str


class StoredApproval(msgspec.Struct, frozen=True):
    """A request as it is kept, and the response that took its answer, None while nobody has.

    `request` is None where only the answer is known: it was asked for by a response that is not stored.
    """

    request: bytes | None
    answered_by: str | None


class AnswerClaim(msgspec.Struct, frozen=True):
    """The answers that the response `by`, which is not stored itself, takes."""

    tenant: str
    by: str
    answers: tuple[Answer, ...]


class ApprovalStore(Protocol):
    """Requests for consent. Each is answered once, for all workers and for ever.

    They are written by `ResponseStore.finish`, and their answers taken by `ResponseStore.accept`. A request
    goes when the response goes that asked.
    """

    async def find_approvals(self, tenant: str, ids: list[str]) -> dict[str, StoredApproval]:
        """Return those of these requests that the tenant has."""
        ...

    async def take_answers(self, claim: AnswerClaim) -> None:
        """Take answers to stored requests, all or none; raises `AlreadyAnswered`.

        For a response that is not stored, which leaves no other trace: what is not known is not noted.
        """
        ...

    async def free_answers(self, claim: AnswerClaim) -> None:
        """Give back what was taken, where nothing was done with it."""
        ...
