"""Group commit: writers that come while others commit share the next transaction.

A commit waits for the disk, and that costs the same for one writer as for sixty. A writer that finds
nobody writing, or one, goes alone and at once. Nobody is acknowledged before the commit, and nobody fails for
another's sake: where a group fails or waits, each of its members is tried by itself, and who brings much goes
alone, beside the groups: the one deadline of a group would else be spent on it.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Coroutine, Iterable
from typing import Any

import msgspec
import psycopg

from engine.errors import StorageUnavailable
from engine.ports.meters import NO_METERS, Meters
from storage.postgres.pool import Connection, Pool
from storage.postgres.scope import Row, Statement, rows_of, rows_of_group

LANES = 2
"""Transactions on their way at once: while one waits for the disk, the server works for the other."""

MAX_MEMBERS = 64
"""Of one group: bounds what a failure repeats, and how long the first waits for the last."""

LARGE_BYTES = 256 * 1024
"""A write of more goes alone."""

GROUP_BYTES = 1024 * 1024
"""Of one group: what even a slow network carries well within the deadline of all."""

LARGE_LANES = 2
"""Large writes on their way at once: the other connections of the pool are everybody's."""

LOCK_SECONDS = 0.2
"""How long a group waits for a lock; a member that needs longer waits by itself."""

_VALUE_BYTES = 8

# What can be one member's fault. What is everybody's is repeated or reported by the pool.
_ONES_OWN = (
    psycopg.IntegrityError,
    psycopg.DataError,
    psycopg.ProgrammingError,
    psycopg.errors.LockNotAvailable,
    psycopg.errors.QueryCanceled,  # the server lives, and one statement took too long
)


class Write(msgspec.Struct, frozen=True):
    """A statement that returns a row if it wrote, and is safe to repeat.

    `order` is where it stands in a group: in the order of its locks, so that groups do not deadlock.
    """

    statement: Statement
    order: tuple[int, str, str]


class Written(msgspec.Struct, frozen=True):
    """What became of a write. `row` is None if it did not write, `clash` says that its key was there.

    `repeated`: the answer to an earlier attempt was lost, and that attempt may have committed.
    """

    row: Row | None
    clash: bool
    repeated: bool


class _Member:
    def __init__(self, write: Write, size: int) -> None:
        self.write = write
        self.size = size
        self.done: asyncio.Future[Written] = asyncio.get_running_loop().create_future()


class Writer:
    """Writes over a pool, in groups. A write that is cancelled may have been done or not."""

    def __init__(self, pool: Pool, meters: Meters = NO_METERS) -> None:
        self._pool = pool
        self._meters = meters
        self._busy = 0
        self._large = asyncio.Semaphore(LARGE_LANES)
        self._waiting: deque[_Member] = deque()
        self._tasks: set[asyncio.Task[None]] = set()

    async def write(self, write: Write) -> Written:
        """Return what became of it once that is durable; raises `StorageUnavailable`."""
        began = _now()
        written = await self._write(write)
        self._meters.committed(_now() - began)
        return written

    async def _write(self, write: Write) -> Written:
        size = _size(write.statement.values.values())
        if size > LARGE_BYTES:
            async with self._large:
                return await self.write_alone(write)
        if self._busy == LANES:
            member = _Member(write, size)
            self._waiting.append(member)
            return await member.done
        self._busy += 1
        try:
            return await self.write_alone(write)
        finally:
            if self._waiting:
                self._start(self._write_groups())
            else:
                self._busy -= 1

    async def _write_groups(self) -> None:
        try:
            while group := self._next_group():
                await self._together(group)
        finally:
            self._busy -= 1
            while not self._busy and self._waiting:  # we were cancelled, with the loop
                self._waiting.popleft().done.cancel()

    def _next_group(self) -> list[_Member]:
        group: list[_Member] = []
        left = GROUP_BYTES
        while self._waiting and len(group) < MAX_MEMBERS and self._waiting[0].size <= left:
            member = self._waiting.popleft()
            if not member.done.done():
                left -= member.size
                group.append(member)
        return sorted(group, key=lambda member: member.write.order)

    async def _together(self, group: list[_Member]) -> None:
        attempts = 0

        async def work(connection: Connection, attempt: int) -> list[list[Row]] | None:
            nonlocal attempts
            attempts = attempt
            try:
                return await rows_of_group(
                    connection,
                    (member.write.statement for member in group),
                    lock_seconds=LOCK_SECONDS,
                )
            except _ONES_OWN:
                return None

        if len(group) == 1:
            return await self._by_itself(group[0], repeated=False)
        began = _now()
        try:
            results = await self._pool.run(work)
        except Exception as error:  # each member's to handle, none of them ours
            for member in group:
                _fail(member, error)
            return
        if results is None:
            for member in group:
                self._start(self._by_itself(member, repeated=attempts > 0))
            return
        self._meters.commit(len(group), _now() - began)
        for member, rows in zip(group, results, strict=True):
            _settle(member, Written(_first(rows), clash=False, repeated=attempts > 0))

    async def _by_itself(self, member: _Member, *, repeated: bool) -> None:
        try:
            written = await self.write_alone(member.write)
        except Exception as error:
            _fail(member, error)
        else:
            again = repeated or written.repeated
            _settle(member, msgspec.structs.replace(written, repeated=again))

    async def write_alone(self, write: Write) -> Written:
        """Write without company, in a transaction of its own."""

        async def work(connection: Connection, attempt: int) -> Written:
            try:
                [rows] = await rows_of(connection, write.statement)
            except psycopg.errors.UniqueViolation:
                return Written(None, clash=True, repeated=attempt > 0)
            return Written(_first(rows), clash=False, repeated=attempt > 0)

        began = _now()
        written = await self._pool.run(work)
        self._meters.commit(1, _now() - began)
        return written

    def _start(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def _now() -> float:
    return asyncio.get_running_loop().time()


def _size(values: Iterable[object]) -> int:
    """Return about how many bytes go to the server; each value costs some, whatever it is."""
    size = 0
    for value in values:
        if isinstance(value, list):
            size += _size(value)
        else:
            size += _VALUE_BYTES + (len(value) if isinstance(value, bytes | str) else 0)
    return size


def _settle(member: _Member, written: Written) -> None:
    if not member.done.done():
        member.done.set_result(written)


def _fail(member: _Member, error: Exception) -> None:
    if member.done.done():
        return
    # Of one's own: an exception that several raise gathers all of their tracebacks.
    own = StorageUnavailable(error.message) if isinstance(error, StorageUnavailable) else error
    own.__cause__ = error.__cause__ if own is not error else own.__cause__
    member.done.set_exception(own)


def _first(rows: list[Row]) -> Row | None:
    return rows[0] if rows else None
