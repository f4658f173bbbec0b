"""Statements under a tenant: what row-level security lets through is decided in the same transaction.

Several statements are one message to the server and one transaction of it: nothing of them is done if
one fails. (In a pipeline without BEGIN, the transaction ends with the pipeline.)
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, TypeAlias

import msgspec
import psycopg

from storage.limits import wanted
from storage.postgres import queries
from storage.postgres.pool import Connection

_SQL = queries.load("gates.sql")

Row: TypeAlias = tuple[Any, ...]


class Statement(msgspec.Struct, frozen=True):
    """A statement with its values, the tenant among them."""

    sql: bytes
    values: Mapping[str, Any]

    @property
    def tenant(self) -> str:
        """Whose rows it reads and writes."""
        tenant: str = self.values["tenant"]
        return tenant


async def rows_of(connection: Connection, *statements: Statement) -> list[list[Row]]:
    """Return the rows of each statement; all of them in one round trip and one transaction."""
    return await _piped(connection, [], statements)


async def rows_of_group(
    connection: Connection, statements: Iterable[Statement], *, lock_seconds: float
) -> list[list[Row]]:
    """The same for strangers, none of whom waits for a lock for longer than that."""
    milliseconds = str(max(1, int(lock_seconds * 1000)))
    limit = Statement(_SQL["limit_waiting"], {"milliseconds": milliseconds})
    return await _piped(connection, [limit], statements)


async def _piped(
    connection: Connection, first: list[Statement], statements: Iterable[Statement]
) -> list[list[Row]]:
    cursors = []
    scope: str | None = None
    async with connection.pipeline():
        for statement in first:
            await connection.execute(statement.sql, statement.values)
        for statement in statements:
            if statement.tenant != scope:
                scope = statement.tenant
                await connection.execute(_SQL["set_tenant"], {"tenant": scope})
            cursor = connection.cursor(binary=True)  # bytea as it is, not as hexadecimal text
            await cursor.execute(statement.sql, statement.values)
            cursors.append(cursor)
    return [await _rows(cursor) for cursor in cursors]


async def _rows(cursor: psycopg.AsyncCursor[Row]) -> list[Row]:
    return await cursor.fetchall() if cursor.description else []


def key(tenant: str, response_id: str) -> dict[str, Any]:
    """Return what a statement about one response needs; what nobody can have is looked up in vain."""
    return {"tenant": wanted(tenant), "id": wanted(response_id)}
