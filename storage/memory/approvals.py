"""Requests for consent in memory: asked, answered once, given back (rule T6)."""

from __future__ import annotations

from collections.abc import Iterable

from engine.errors import AlreadyAnswered
from engine.ports import Answer, AskedApproval, StoredApproval
from storage.memory.records import Approval, Tenant


def check_free(mine: Tenant, answers: Iterable[Answer], by: str) -> None:
    """Raise `AlreadyAnswered` if somebody else took the answer to one of the requests."""
    for answer in answers:
        known = mine.approvals.get(answer.id)
        if known is not None and known.answered_by not in (None, by):
            raise AlreadyAnswered(answer.id, answer.param)


def take(mine: Tenant, answers: Iterable[Answer], by: str) -> None:
    """Take the answers to requests that are stored, and note those to others."""
    for answer in answers:
        mine.approvals.setdefault(answer.id, Approval(by, None)).answered_by = by


def take_known(mine: Tenant, answers: Iterable[Answer], by: str) -> None:
    """Take the answers to requests that are stored."""
    take(mine, [answer for answer in answers if answer.id in mine.approvals], by)


def ask(mine: Tenant, asked: Iterable[AskedApproval], by: str) -> None:
    """Write the requests of a response."""
    for each in asked:
        mine.approvals.setdefault(each.id, Approval(by, each.request))


def free(mine: Tenant, by: str) -> None:
    """Give back what a response took."""
    for approval in mine.approvals.values():
        if approval.answered_by == by:
            approval.answered_by = None


def forget_asked(mine: Tenant, response_id: str) -> None:
    """Remove what goes with a response."""
    gone = [name for name, each in mine.approvals.items() if each.response_id == response_id]
    for name in gone:
        del mine.approvals[name]


def found(mine: Tenant, ids: Iterable[str]) -> dict[str, StoredApproval]:
    """Return those of these requests that there are."""
    known = mine.approvals
    return {
        name: StoredApproval(known[name].request, known[name].answered_by)
        for name in ids
        if name in known
    }
