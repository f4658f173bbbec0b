"""Connections to Postgres, and the one place where its errors become ours.

Keeps rule P2: when the server is away, an operation fails within milliseconds of the refusal and in
any case within its timeout; when the server is back, connections that died cost no request.
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, TypeAlias, TypeVar

import msgspec
import psycopg
from psycopg.conninfo import conninfo_to_dict
from psycopg_pool import AsyncConnectionPool, PoolClosed, PoolTimeout

from engine.errors import EngineError, StorageUnavailable

_T = TypeVar("_T")

Connection: TypeAlias = psycopg.AsyncConnection[tuple[Any, ...]]
Work: TypeAlias = Callable[[Connection, int], Awaitable[_T]]
"""What is done with a connection; the number counts the attempts from 0."""

ATTEMPTS = 3
"""The first, one after dead connections were replaced, and one if the server died once more."""

# All that we ask goes by key. A plan made while a table was new and empty would go on scanning it for
# as long as the connection lives; so scans are not on offer.
_PLANS_BY_KEY = {"enable_seqscan": "off"}

_RETRIED = (psycopg.errors.DeadlockDetected, psycopg.errors.SerializationFailure)
_NO_SCHEMA = (psycopg.errors.UndefinedTable, psycopg.errors.UndefinedColumn)


class Scope(msgspec.Struct, frozen=True):
    """Whose rows a statement may see: those of a tenant, and with `sweeps` what no tenant owns alone.

    The policies of row-level security read it (sql/migrations/0002).
    """

    tenant: str
    sweeps: bool = False


NOBODY = Scope("")
SWEEPS = Scope("", sweeps=True)

_ENTER = b"""
    SELECT set_config('holdfast.tenant', %(tenant)s, false),
           set_config('holdfast.sweeps', %(sweeps)s, false)
"""
_SET_ROLE = b"SET ROLE holdfast_app"


class _Connection(psycopg.AsyncConnection[tuple[Any, ...]]):
    """A connection that knows when it was opened, in seconds of the loop's clock, and what it may see."""

    opened: float = 0.0
    guarded = False
    """True once it works under the role that row-level security holds for."""
    scope: Scope | None = None
    """What was last entered; None where a broken transaction may have undone it."""


async def enter(connection: Connection, scope: Scope) -> None:
    """Let the statements that follow see the rows of `scope` alone."""
    assert isinstance(connection, _Connection)
    if connection.scope == scope:
        return
    connection.scope = None
    await connection.execute(
        _ENTER, {"tenant": scope.tenant, "sweeps": "on" if scope.sweeps else "off"}
    )
    connection.scope = scope


class Pool:
    """Runs work on pooled connections, in autocommit: each statement is its own transaction.

    Work is run again after a lost connection or a deadlock: it has to be safe to repeat, also where
    the lost attempt did commit.
    """

    def __init__(self, conninfo: str, *, min_size: int, max_size: int, timeout: float) -> None:
        self._timeout = timeout
        self._pool = AsyncConnectionPool(
            conninfo,
            connection_class=_Connection,
            kwargs=_connection_settings(conninfo, timeout),
            min_size=min_size,
            max_size=max_size,
            open=False,
            configure=_note_opening,
            # No back-off of the pool's own, under which requests would wait for a server that is
            # long back: every request that finds no connection asks for one.
            reconnect_timeout=0,
            reconnect_failed=self._refuse_waiting,
        )
        self._waiting: set[asyncio.Timeout] = set()
        self._in_use = 0
        self._replaced_at = 0.0

    async def run(self, work: Work[_T], scope: Scope = NOBODY) -> _T:
        """Return what `work` returns; raises `StorageUnavailable` if Postgres cannot do it now.

        Work sees the rows of `scope`: with none given, no row at all (rule X1).
        """
        try:
            return await self._repeat(work, scope, _now() + self._timeout)
        except TimeoutError as error:
            raise StorageUnavailable("The database refuses connections.") from error
        except psycopg.Error as error:
            raise _translated(error) from error

    async def open(self) -> None:
        """Start connecting; does not wait for the server, so that we can start before it."""
        await self._pool.open()

    async def close(self) -> None:
        """Close all connections; work that waits for one fails with `StorageUnavailable`."""
        await self._pool.close()

    async def _repeat(self, work: Work[_T], scope: Scope, deadline: float) -> _T:
        for attempt in range(ATTEMPTS - 1):
            try:
                return await self._once(work, scope, attempt, deadline)
            except (_ConnectionLost, *_RETRIED):
                if _now() >= deadline:
                    raise
        return await self._once(work, scope, ATTEMPTS - 1, deadline)

    async def _once(self, work: Work[_T], scope: Scope, attempt: int, deadline: float) -> _T:
        connection = await self._connection(deadline)
        self._in_use += 1
        # The server ends a slow statement by itself, a little earlier: this is for one that went
        # silent. Not by cancelling, for which psycopg waits until the server has agreed to it.
        loop = asyncio.get_running_loop()
        end = loop.call_later(self._timeout, _hang_up, connection)
        try:
            await _guard(connection)
            await enter(connection, scope)
            return await work(connection, attempt)
        except psycopg.errors.ReadOnlySqlTransaction:
            # A primary that became a standby keeps its connections: they would fail for ever.
            await connection.close()
            raise
        except psycopg.OperationalError as error:
            connection.scope = None
            if not connection.closed:
                raise
            await self._replace(connection)
            raise _ConnectionLost(*error.args) from error
        except BaseException:
            # What was entered in a transaction that broke is undone with it.
            connection.scope = None
            raise
        finally:
            end.cancel()
            self._in_use -= 1
            await self._pool.putconn(connection)

    async def _connection(self, deadline: float) -> _Connection:
        """Wait for a connection for as long as there is hope."""
        async with asyncio.timeout(None) as hope:
            self._waiting.add(hope)
            try:
                return await self._pool.getconn(deadline - _now())
            finally:
                self._waiting.discard(hope)

    async def _refuse_waiting(self, _pool: AsyncConnectionPool[_Connection]) -> None:
        """End all waits when the server refused a connection and none is in use."""
        while self._waiting and not self._in_use:
            self._waiting.pop().reschedule(_now())

    async def _replace(self, lost: _Connection) -> None:
        """Replace all connections that are not younger than the lost one: its server is gone.

        Without asking them one by one: a server that went silent would answer none of them.
        """
        if lost.opened > self._replaced_at:
            self._replaced_at = _now()
            await self._pool.drain()


class _NoRole(psycopg.ProgrammingError):
    """The role of workers is missing, or we may not take it on."""


class _ConnectionLost(psycopg.OperationalError):
    """The connection died under the work: another may live."""


@asynccontextmanager
async def open_pool(
    conninfo: str, *, min_size: int = 2, max_size: int = 10, timeout: float = 5.0
) -> AsyncIterator[Pool]:
    """Open a pool that is closed on exit.

    `timeout` (seconds) bounds the wait for a connection and the repetitions of work, and from then
    on the wait for the answer to the work.
    """
    pool = Pool(conninfo, min_size=min_size, max_size=max_size, timeout=timeout)
    await pool.open()
    try:
        yield pool
    finally:
        await pool.close()


def _connection_settings(conninfo: str, timeout: float) -> dict[str, Any]:
    given = conninfo_to_dict(conninfo)
    milliseconds = max(1, int(timeout * 1000))
    server = {
        "statement_timeout": str(max(1, milliseconds * 9 // 10)),
        "idle_in_transaction_session_timeout": str(milliseconds),
        **_PLANS_BY_KEY,
    }
    options = " ".join(f"-c {name}={value}" for name, value in server.items())
    defaults = {
        "application_name": "holdfast",
        "connect_timeout": max(2, int(timeout)),  # libpq knows no less than 2 s
        "tcp_user_timeout": milliseconds,
        "keepalives_idle": 30,
    }
    settings = {key: value for key, value in defaults.items() if key not in given}
    # What the operator gave comes last and wins.
    return settings | {
        "autocommit": True,
        "prepare_threshold": 0,
        "options": f"{options} {given.get('options') or ''}".strip(),
    }


async def _note_opening(connection: _Connection) -> None:
    connection.opened = _now()


async def _guard(connection: _Connection) -> None:
    """Take on the role of workers; raises `_NoRole` where the database is not prepared for us."""
    if connection.guarded:
        return
    try:
        await connection.execute(_SET_ROLE)
    except (psycopg.errors.InvalidParameterValue, psycopg.errors.InsufficientPrivilege) as error:
        raise _NoRole(*error.args) from error
    connection.guarded = True


def _hang_up(connection: _Connection) -> None:
    """End a connection from our side; whoever reads from it sees that the server has gone."""
    if not connection.closed:
        with socket.socket(fileno=os.dup(connection.fileno())) as wire:
            wire.shutdown(socket.SHUT_RDWR)


def _now() -> float:
    return asyncio.get_running_loop().time()


def _translated(error: psycopg.Error) -> EngineError | psycopg.Error:
    """Return the engine's word for a driver's error; the error itself where it is a bug of ours."""
    if isinstance(error, PoolClosed):
        return StorageUnavailable("The database connection is closed.")
    if isinstance(error, PoolTimeout):
        return StorageUnavailable("No database connection became free in time.")
    if isinstance(error, _NoRole):
        return StorageUnavailable(
            f"The database is not prepared: run `holdfast migrate` ({str(error).strip()})."
        )
    if isinstance(error, _NO_SCHEMA):
        return StorageUnavailable("The database schema is not up to date: run `holdfast migrate`.")
    if isinstance(error, psycopg.OperationalError | psycopg.errors.ReadOnlySqlTransaction):
        return StorageUnavailable("The database is not available.")
    return error
