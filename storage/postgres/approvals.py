"""Requests for consent: looked up, and answered by responses that are not stored (rule T6)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from engine.errors import AlreadyAnswered
from engine.ports import Answer, AnswerClaim, StoredApproval
from storage.limits import wanted
from storage.postgres import queries
from storage.postgres.pool import Connection, Pool
from storage.postgres.scope import Row, Statement, key, rows_of

_SQL = queries.load("approvals.sql")


class Approvals:
    """The part of `engine.ports.Store` that is about them alone."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def find_approvals(self, tenant: str, ids: list[str]) -> dict[str, StoredApproval]:
        """Return those of these requests that the tenant has."""
        values = {"tenant": wanted(tenant), "answers": [wanted(each) for each in ids]}
        rows = await self._done(Statement(_SQL["find_approvals"], values)) if ids else []
        return {row[0]: StoredApproval(row[1], row[2]) for row in rows}

    async def take_answers(self, claim: AnswerClaim) -> None:
        """Take answers to stored requests, all or none; raises `AlreadyAnswered`."""
        values = {**key(claim.tenant, claim.by), **answer_values(claim.answers)}
        lost = {row[0] for row in await self._done(Statement(_SQL["take_answers"], values))}
        for answer in claim.answers:
            if answer.id in lost:
                raise AlreadyAnswered(answer.id, answer.param)

    async def free_answers(self, claim: AnswerClaim) -> None:
        """Give back what was taken."""
        await self._done(freeing(claim.tenant, claim.by))

    async def _done(self, statement: Statement) -> list[Row]:
        async def work(connection: Connection, _attempt: int) -> list[Row]:
            [rows] = await rows_of(connection, statement)
            return rows

        return await self._pool.run(work)


def freeing(tenant: str, response_id: str) -> Statement:
    """Return what gives back all that a response took."""
    return Statement(_SQL["free_answers"], key(tenant, response_id))


def answer_values(answers: Iterable[Answer]) -> dict[str, Any]:
    """Return what a statement needs that takes answers."""
    return {"answers": [wanted(answer.id) for answer in answers]}
