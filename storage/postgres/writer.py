"""Group commit: writers that wait at the same time share one transaction.

A commit waits for the disk, and many of them for each other. So while some groups are being committed the
next one collects; a writer that is alone commits at once and pays nothing.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Mapping
from typing import Any

import msgspec

from engine.errors import StorageUnavailable
from storage.postgres.pool import Connection, Pool, Scope, enter

_Row = tuple[Any, ...]

# Groups on their way at the same time. With one, a second writer would wait for the first one's disk.
LANES = 2
# Members of a group, and bytes of which it takes no more members.
MOST, FULL = 64, 1 << 20


class Written(msgspec.Struct, frozen=True):
    """What a statement returned. `repeated`: it may have been carried out by a connection that died."""

    row: _Row | None
    repeated: bool


class _Member(msgspec.Struct, frozen=True):
    scope: Scope
    statement: bytes
    values: Mapping[str, Any]
    size: int
    done: asyncio.Future[Written]


class Writer:
    """Runs statements that return a row, or none where they did nothing; none of them may raise."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._waiting: deque[_Member] = deque()
        self._lanes: set[asyncio.Task[None]] = set()

    async def write(
        self, scope: Scope, statement: bytes, values: Mapping[str, Any], size: int
    ) -> Written:
        """Return what the statement returned, once it is committed; `size` is its bytes, roughly.

        Raises `StorageUnavailable`. A caller that is cancelled may have been written all the same.
        """
        done: asyncio.Future[Written] = asyncio.get_running_loop().create_future()
        self._waiting.append(_Member(scope, statement, values, size, done))
        if len(self._lanes) < LANES:
            lane = asyncio.create_task(self._work_off())
            self._lanes.add(lane)
            lane.add_done_callback(self._lanes.discard)
        return await done

    async def _work_off(self) -> None:
        while self._waiting:
            group = [self._waiting.popleft()]
            size = group[0].size
            while self._waiting and len(group) < MOST and size < FULL:
                group.append(self._waiting.popleft())
                size += group[-1].size
            await self._commit(group)

    async def _commit(self, group: list[_Member]) -> None:
        async def work(connection: Connection, attempt: int) -> list[Written]:
            rows = await (
                _one(connection, group[0]) if len(group) == 1 else _all(connection, group)
            )
            return [Written(row, attempt > 0) for row in rows]

        try:
            results = await self._pool.run(work, group[0].scope)
        except StorageUnavailable as error:
            for member in group:
                _fail(member, error)
        except Exception as error:
            if len(group) == 1:
                _fail(group[0], error)
                return
            # One of them is at fault: the others must not suffer for it.
            for member in group:
                await self._commit([member])
        else:
            for member, written in zip(group, results, strict=True):
                if not member.done.done():
                    member.done.set_result(written)


async def _one(connection: Connection, member: _Member) -> list[_Row | None]:
    cursor = await connection.execute(member.statement, member.values)
    return [await cursor.fetchone()]


async def _all(connection: Connection, group: list[_Member]) -> list[_Row | None]:
    """Run a group in one transaction and one round trip."""
    cursors = []
    async with connection.pipeline(), connection.transaction():
        for member in group:
            await enter(connection, member.scope)
            cursors.append(await connection.execute(member.statement, member.values))
    return [await cursor.fetchone() for cursor in cursors]


def _fail(member: _Member, error: Exception) -> None:
    if not member.done.done():
        member.done.set_exception(error)
