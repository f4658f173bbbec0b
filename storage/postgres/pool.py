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
from engine.ports.meters import NO_METERS, Meters, StorageTrouble

_T = TypeVar("_T")

Connection: TypeAlias = psycopg.AsyncConnection[tuple[Any, ...]]
Work: TypeAlias = Callable[[Connection, int], Awaitable[_T]]
"""What is done with a connection; the number counts the attempts from 0."""

ATTEMPTS = 3
"""The first, one after dead connections were replaced, and one if the server died once more."""

# All that we ask goes by key. A plan made while a table was new and empty would go on scanning it for
# as long as the connection lives; so scans are not on offer.
_PLANS_BY_KEY = {"enable_seqscan": "off"}

ROLE = "holdfast_app"
"""Whom every pooled connection acts as: row-level security holds for it, and it owns nothing."""

_RETRIED = (psycopg.errors.DeadlockDetected, psycopg.errors.SerializationFailure)
_NO_SCHEMA = (
    psycopg.errors.UndefinedTable,
    psycopg.errors.UndefinedColumn,
    psycopg.errors.UndefinedFunction,
    psycopg.errors.InsufficientPrivilege,  # tables of before there was the role
)
_NO_ROLE = (psycopg.errors.InvalidParameterValue, psycopg.errors.InsufficientPrivilege)


_BECOME = f"SET ROLE {ROLE}".encode()
_REFUSED = "The database refuses connections."
_AWAY = "The database is not available."
_NONE_FREE = "No database connection became free in time."
_NO_ROLE_REFUSAL = f"The database has no role {ROLE} for its user: run `holdfast migrate`."


class _Connection(psycopg.AsyncConnection[tuple[Any, ...]]):
    """A connection that knows when it was opened, in seconds of the loop's clock."""

    opened: float = 0.0


class Census(msgspec.Struct, frozen=True):
    """The connections of one moment: at work, idle, the most there may be, and who waits for one."""

    used: int
    idle: int
    most: int
    waiting: int


class Pool:
    """Runs work on pooled connections, in autocommit: each statement is its own transaction.

    Work is run again after a lost connection or a deadlock: it has to be safe to repeat, also where
    the lost attempt did commit.
    """

    def __init__(
        self,
        conninfo: str,
        *,
        min_size: int,
        max_size: int,
        timeout: float,
        meters: Meters = NO_METERS,
    ) -> None:
        self._meters = meters
        self._timeout = timeout
        self._pool = AsyncConnectionPool(
            conninfo,
            connection_class=_Connection,
            kwargs=_connection_settings(conninfo, timeout),
            min_size=min_size,
            max_size=max_size,
            open=False,
            configure=self._configure,
            # No back-off of the pool's own, under which requests would wait for a server that is
            # long back: every request that finds no connection asks for one.
            reconnect_timeout=0,
            reconnect_failed=self._refuse_waiting,
        )
        self._refusal = _REFUSED
        self._waiting: set[asyncio.Timeout] = set()
        self._in_use = 0
        self._replaced_at = 0.0

    async def run(self, work: Work[_T]) -> _T:
        """Return what `work` returns; raises `StorageUnavailable` if Postgres cannot do it now."""
        try:
            return await self._repeat(work, _now() + self._timeout)
        except TimeoutError as error:
            self._meters.storage_error("unavailable")
            raise StorageUnavailable(self._refusal) from error
        except PoolTimeout as error:
            # With none in use it is not the pool that is short of them: a silent server gives none.
            self._meters.storage_error("pool" if self._in_use else "unavailable")
            raise StorageUnavailable(_NONE_FREE if self._in_use else _AWAY) from error
        except psycopg.Error as error:
            told = _translated(error)
            if isinstance(told, StorageUnavailable):
                self._meters.storage_error(_trouble(error))
            raise told from error

    def census(self) -> Census:
        """Return what there is now."""
        counts = self._pool.get_stats()
        return Census(
            used=self._in_use,
            idle=counts.get("pool_available", 0),
            most=self._pool.max_size,
            waiting=counts.get("requests_waiting", 0),
        )

    async def open(self) -> None:
        """Start connecting; does not wait for the server, so that we can start before it."""
        await self._pool.open()

    async def close(self) -> None:
        """Close all connections; work that waits for one fails with `StorageUnavailable`."""
        await self._pool.close()

    async def _repeat(self, work: Work[_T], deadline: float) -> _T:
        for attempt in range(ATTEMPTS - 1):
            try:
                return await self._once(work, attempt, deadline)
            except (_ConnectionLost, *_RETRIED):
                if _now() >= deadline:
                    raise
                self._meters.storage_retry()
        return await self._once(work, ATTEMPTS - 1, deadline)

    async def _once(self, work: Work[_T], attempt: int, deadline: float) -> _T:
        connection = await self._connection(deadline)
        self._in_use += 1
        # The server ends a slow statement by itself, a little earlier: this is for one that went
        # silent. Not by cancelling, for which psycopg waits until the server has agreed to it.
        loop = asyncio.get_running_loop()
        end = loop.call_later(self._timeout, _hang_up, connection)
        try:
            return await work(connection, attempt)
        except psycopg.errors.ReadOnlySqlTransaction:
            # A primary that became a standby keeps its connections: they would fail for ever.
            await connection.close()
            raise
        except psycopg.OperationalError as error:
            if not connection.closed:
                raise
            await self._replace(connection)
            raise _ConnectionLost(*error.args) from error
        finally:
            end.cancel()
            self._in_use -= 1
            await self._pool.putconn(connection)

    async def _connection(self, deadline: float) -> _Connection:
        """Wait for a connection for as long as there is hope."""
        began = _now()
        async with asyncio.timeout(None) as hope:
            self._waiting.add(hope)
            try:
                connection = await self._pool.getconn(deadline - began)
                self._meters.pool_wait(_now() - began)
                return connection
            finally:
                self._waiting.discard(hope)

    async def _configure(self, connection: _Connection) -> None:
        """Become the application's role; a connection that cannot is not used."""
        try:
            await connection.execute(_BECOME)
        except _NO_ROLE:
            self._refusal = _NO_ROLE_REFUSAL
            raise
        self._refusal = _REFUSED
        connection.opened = _now()

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


class _ConnectionLost(psycopg.OperationalError):
    """The connection died under the work: another may live."""


@asynccontextmanager
async def open_pool(
    conninfo: str,
    *,
    min_size: int = 2,
    max_size: int = 10,
    timeout: float = 5.0,
    meters: Meters = NO_METERS,
) -> AsyncIterator[Pool]:
    """Open a pool that is closed on exit.

    `timeout` (seconds) bounds the wait for a connection and the repetitions of work, and from then
    on the wait for the answer to the work.
    """
    pool = Pool(conninfo, min_size=min_size, max_size=max_size, timeout=timeout, meters=meters)
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


def _hang_up(connection: _Connection) -> None:
    """End a connection from our side; whoever reads from it sees that the server has gone."""
    if not connection.closed:
        with socket.socket(fileno=os.dup(connection.fileno())) as wire:
            wire.shutdown(socket.SHUT_RDWR)


def _now() -> float:
    return asyncio.get_running_loop().time()


def _trouble(error: psycopg.Error) -> StorageTrouble:
    if isinstance(error, _NO_SCHEMA):
        return "schema"
    if isinstance(error, psycopg.errors.QueryCanceled):
        return "timeout"
    return "unavailable"


def _translated(error: psycopg.Error) -> EngineError | psycopg.Error:
    """Return the engine's word for a driver's error; the error itself where it is a bug of ours."""
    if isinstance(error, PoolClosed):
        return StorageUnavailable("The database connection is closed.")
    if isinstance(error, _NO_SCHEMA):
        return StorageUnavailable("The database schema is not up to date: run `holdfast migrate`.")
    if isinstance(error, psycopg.OperationalError | psycopg.errors.ReadOnlySqlTransaction):
        return StorageUnavailable(_AWAY)
    return error
