"""A private Postgres beside us, for `holdfast up` and the tests: no installation, port or password.

It lives in one directory, listens on one unix socket that only its own user and root can reach,
ends with us however we end, and loses nothing that it acknowledged.

    <data_dir>/pgdata        the cluster
    <data_dir>/run           the socket (elsewhere if the path is too long for one)
    <data_dir>/postgres.log  what the server says
    <data_dir>/lock          held by whoever uses the directory
"""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import psycopg
from psycopg.conninfo import make_conninfo

from storage.postgres.embedded_data import (
    USER,
    DataDirectory,
    find_binaries,
    open_directory,
)
from storage.postgres.embedded_process import CannotStart, children, spawn, wait_exit

__all__ = ["CannotStart", "EmbeddedPostgres", "embedded_postgres"]

_POLL_SECONDS = 0.02
_RESTART_PAUSE_SECONDS = 0.25


class EmbeddedPostgres:
    """A running server: `conninfo` is how to reach it (a superuser, database `postgres`)."""

    def __init__(self, start: Callable[[], subprocess.Popen[bytes]], conninfo: str) -> None:
        self._start = start
        self._process = start()
        self.conninfo = conninfo

    @property
    def pid(self) -> int:
        """The process id of the postmaster."""
        return self._process.pid

    @property
    def is_running(self) -> bool:
        """Whether the postmaster is still there."""
        return self._process.poll() is None

    def kill(self) -> None:
        """End the server and its children with SIGKILL, as a crash does."""
        family = children(self.pid)
        self._process.kill()
        self._process.wait()
        for pid in family:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass

    async def restart(self, timeout: float) -> None:
        """Start a server that ended by itself again; raises `CannotStart` after `timeout` seconds.

        Its directory, socket and conninfo stay the same; it first recovers what it had acknowledged.
        """
        deadline = time.monotonic() + timeout
        while True:
            self._process = self._start()
            try:
                await _wait_ready(self, deadline, lambda: "see its log")
                return
            except CannotStart:
                # The children of a killed postmaster take a moment to notice, and hold its memory.
                if time.monotonic() > deadline:
                    raise
            await asyncio.sleep(_RESTART_PAUSE_SECONDS)

    async def stop(self, timeout: float) -> None:
        """Shut down cleanly; after `timeout` seconds without a checkpoint, and then by force."""
        for number, seconds in ((signal.SIGINT, timeout), (signal.SIGQUIT, 5.0)):
            self._process.send_signal(number)
            if await wait_exit(self._process, seconds):
                return
        self.kill()


@asynccontextmanager
async def embedded_postgres(
    data_dir: Path,
    *,
    binaries: Path | None = None,
    max_connections: int = 40,
    start_timeout: float = 60.0,
    stop_timeout: float = 30.0,
) -> AsyncIterator[EmbeddedPostgres]:
    """Run a server on `data_dir` (made if it is not there) until the block is left.

    `start_timeout` (seconds) covers initdb, the end of a predecessor, and crash recovery. As root,
    the server runs as the owner of `data_dir`, or as `nobody`. Raises `CannotStart`: the directory
    is in use, of another major version, not reachable; no passwd entry for initdb; no wheel.

    The thread that enters must live as long as the server: it ends with that thread.
    """
    deadline = time.monotonic() + start_timeout
    directory = open_directory(data_dir, binaries or find_binaries())
    async with directory.locked(deadline) as lock:
        await directory.prepare(deadline)
        with directory.socket_directory() as socket_directory:
            logged = directory.log.stat().st_size
            server = _start(directory, socket_directory, lock, max_connections)
            try:
                await _wait_ready(server, deadline, lambda: directory.log_since(logged))
                yield server
            finally:
                await server.stop(stop_timeout)


def _start(
    directory: DataDirectory, socket_directory: Path, lock: int, max_connections: int
) -> EmbeddedPostgres:
    settings = {
        "listen_addresses": "",
        "port": "5432",  # a part of the socket's name, nothing more
        "unix_socket_directories": str(socket_directory),
        "unix_socket_permissions": "0700",
        "max_connections": str(max_connections),
        "max_wal_size": "256MB",  # bounds crash recovery to about a second
        "jit": "off",
    }
    command: list[str | Path] = [directory.binaries / "postgres", "-D", directory.cluster]
    for name, value in settings.items():
        command += ["-c", f"{name}={value}"]

    def start() -> subprocess.Popen[bytes]:
        with directory.log.open("ab") as log:
            return spawn(command, directory.identity, output=log, keep_open=[lock])

    return EmbeddedPostgres(start, _conninfo(socket_directory))


def _conninfo(socket_directory: Path) -> str:
    return make_conninfo(host=str(socket_directory), user=USER, dbname="postgres")


async def _wait_ready(server: EmbeddedPostgres, deadline: float, said: Callable[[], str]) -> None:
    """Wait until the server accepts connections: after an unclean end it recovers first."""
    while True:
        if not server.is_running:
            raise CannotStart(f"Postgres ended while it started:\n{said()}")
        try:
            connection = await psycopg.AsyncConnection.connect(server.conninfo, connect_timeout=2)
        except psycopg.OperationalError as error:
            if time.monotonic() > deadline:
                raise CannotStart(f"Postgres did not start in time:\n{said()}") from error
            await asyncio.sleep(_POLL_SECONDS)
        else:
            await connection.close()
            return
