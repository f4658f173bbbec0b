"""What is written while a response is made: accept, append, finish, each one statement of a group.

Keeps promise 1 of the design: what a method acknowledged by returning is committed. Where the answer to
an attempt was lost, what that attempt has written is recognised when it is tried again.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from typing import Any

from psycopg.types.numeric import Int8

from engine.errors import (
    AlreadyAccepted,
    AlreadyAnswered,
    Conflict,
    ConversationMoved,
    UnknownPreviousResponse,
)
from engine.ports import EventBatch, FinishedResponse, Lease, NewResponse, StoredItem
from storage.limits import check_finished, check_new, duplicate_response, lost, wanted
from storage.postgres import queries
from storage.postgres.approvals import Approvals, answer_values
from storage.postgres.pool import Connection, Pool
from storage.postgres.scope import Row, Statement, key, rows_of
from storage.postgres.writer import Write, Writer

_SQL = queries.load("writing.sql")

_RUNS, ACCEPTS = 0, 1  # the order of locks in a group
_KEY_ATTEMPTS = 3


class Writing(Approvals):
    """The writing part of `engine.ports.Store`."""

    def __init__(self, pool: Pool, writer: Writer) -> None:
        super().__init__(pool)
        self._writer = writer

    async def accept(self, new: NewResponse) -> Lease:
        """Write response, input, run and first events, and take the lease (one transaction).

        Raises `AlreadyAccepted`, `AlreadyAnswered`, `Conflict` for an id that exists, `InvalidRequest` for
        names that cannot be stored, `UnknownPreviousResponse` where the thread to continue is gone,
        `ConversationMoved` where the conversation is not where it was seen.
        """
        check_new(new)
        values = _new_values(new)
        lease = Lease(new.tenant, new.id, 0 if new.queued else 1)
        write = Write(Statement(_SQL["accept"], values), (ACCEPTS, new.tenant, values["key"] or ""))
        repeated = False
        for _ in range(_KEY_ATTEMPTS):
            written = await self._writer.write(write)
            repeated = repeated or written.repeated
            if written.row is not None:
                return lease
            if repeated and await self._one("accepted_before", values) is not None:
                return lease
            if values["key"] is not None and (taken := await self._one("key_taken", values)):
                raise AlreadyAccepted(*taken)
            await self._check_answers(new)
            if written.clash:
                raise duplicate_response(new.id)
            if values["key"] is None:
                break
            if new.conversation is not None:
                break
            # It was given up between our two questions, or the thread is gone: try again.
        raise _nowhere(new)

    async def find_key(self, tenant: str, key: str) -> tuple[str, bytes] | None:
        """Return the response and the digest that an Idempotency-Key belongs to, or None."""
        row = await self._one("key_taken", {"tenant": wanted(tenant), "key": wanted(key)})
        return None if row is None else (row[0], row[1])

    async def finish(self, finished: FinishedResponse, *, again: bool = False) -> None:
        """Write output, status, head and the log's tail, and end the run, in one transaction.

        Raises `LeaseLost` for a stale token.
        """
        check_finished(finished)
        lease = finished.lease
        values = {
            **lease_values(lease),
            "status": finished.status,
            "head": finished.head,
            "joins": finished.joins,
            **columns(finished.output),
            **_event_values(finished.events),
            "asked_ids": [each.id for each in finished.asked],
            "asked": [each.request for each in finished.asked],
        }
        written = await self._writer.write(_of_run(lease, "finish", values))
        if written.row is not None:
            return
        # After a lost answer it may be finished because we did.
        repeated = again or written.repeated
        if not repeated or await self._one("finished_before", values) is None:
            raise lost(lease)

    async def append(self, lease: Lease, batch: EventBatch) -> None:
        """Add events to the log; raises `LeaseLost`. A batch that is already there is not added twice."""
        values = {**lease_values(lease), **_event_values(batch)}
        written = await self._writer.write(_of_run(lease, "append", values))
        if written.row is None:
            raise lost(lease)

    async def _check_answers(self, new: NewResponse) -> None:
        """Raise `AlreadyAnswered` if somebody took one of the answers."""
        ids = [answer.id for answer in new.answers]
        known = await self.find_approvals(new.tenant, ids) if ids else {}
        for answer in new.answers:
            if answer.id in known and known[answer.id].answered_by is not None:
                raise AlreadyAnswered(answer.id, answer.param)

    async def _one(self, name: str, values: Mapping[str, Any]) -> Row | None:
        statement = Statement(_SQL[name], values)

        async def work(connection: Connection, _attempt: int) -> list[Row]:
            [rows] = await rows_of(connection, statement)
            return rows

        rows = await self._pool.run(work)
        return rows[0] if rows else None


def new_thread() -> str:
    """Return an id for a thread that may have to be made."""
    return f"thr_{secrets.token_hex(12)}"


def lease_values(lease: Lease) -> dict[str, Any]:
    """Return what a statement needs that does something under a lease."""
    return {**key(lease.tenant, lease.response_id), "token": Int8(lease.token)}


def _of_run(lease: Lease, name: str, values: Mapping[str, Any]) -> Write:
    return Write(Statement(_SQL[name], values), (_RUNS, lease.tenant, lease.response_id))


def _nowhere(new: NewResponse) -> Conflict | UnknownPreviousResponse:
    if new.conversation is not None:
        return ConversationMoved(new.conversation)
    if new.after is None:
        return Conflict("Other requests with this Idempotency-Key are being given up.")
    return UnknownPreviousResponse(new.previous_response_id or "")


def _new_values(new: NewResponse) -> dict[str, Any]:
    idempotency = new.idempotency
    return {
        "tenant": new.tenant,
        "id": new.id,
        "model": new.model,
        "previous": new.previous_response_id,
        "conversation": new.conversation,
        "seen": new.seen,
        "head": new.head,
        "streamed": new.streamed,
        "keep_seconds": new.keep_seconds,
        "acceptance": Int8(secrets.randbits(63)),
        "key": None if idempotency is None else idempotency.key,
        "digest": b"" if idempotency is None else idempotency.digest,
        "new_thread": new_thread(),
        "new_root": new.root,
        "after_thread": None if new.after is None else new.after.thread_id,
        "after_position": None if new.after is None else Int8(new.after.position),
        **answer_values(new.answers),
        **_run_values(new),
        **columns(new.input),
        **_event_values(new.events),
    }


def _run_values(new: NewResponse) -> dict[str, Any]:
    return {
        "status": "queued" if new.queued else "in_progress",
        "state": "queued" if new.queued else "running",
        "background": new.background,
        "token": Int8(0 if new.queued else 1),
        "owner": None if new.queued else new.worker,
        "lease_seconds": None if new.queued else new.lease_seconds,
        "work": new.work,
    }


def _event_values(batch: EventBatch | None) -> dict[str, Any]:
    return {
        "first": None if batch is None else Int8(batch.first),
        "last": None if batch is None else Int8(batch.last),
        "frames": None if batch is None else batch.frames,
    }


def columns(items: Sequence[StoredItem]) -> dict[str, Any]:
    """Return items as one array for each column: any number of them is one statement."""
    return {
        "count": Int8(len(items)),
        "item_ids": [item.id for item in items],
        "types": [item.type for item in items],
        "call_ids": [item.call_id for item in items],
        "items": [item.item for item in items],
        "replays": [item.replay for item in items],
    }
