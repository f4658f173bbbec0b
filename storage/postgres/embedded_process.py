"""Processes that run as somebody unprivileged and that do not outlive us.

Postgres refuses to run as root, and a server whose parent was killed must not keep its directory. Below a
directory that only root may enter (`/root`, what `mktemp -d` makes) the process keeps the one capability
that lets it pass, instead of the directory being opened to everybody.
"""

from __future__ import annotations

import asyncio
import ctypes
import os
import pwd
import signal
import stat
import struct
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import BinaryIO

import msgspec

_POLL_SECONDS = 0.01
_PR_SET_PDEATHSIG, _PR_SET_SECUREBITS, _PR_CAP_AMBIENT = 1, 28, 47
_SECBIT_NO_SETUID_FIXUP = 4
_PR_CAP_AMBIENT_RAISE = 2
_CAP_VERSION_3 = 0x20080522
# Read and search, or else read, write and search, whatever the modes say.
_CAP_DAC_READ_SEARCH, _CAP_DAC_OVERRIDE = 2, 1
_NOBODY = 65534
# Looked up before any fork: the child of a process with threads must not load anything.
_LIBC = ctypes.CDLL(None)


class CannotStart(Exception):
    """The embedded Postgres cannot run here; the message says what to do about it."""


class Identity(msgspec.Struct, frozen=True):
    """The user that a process runs as; `dropped` says that this is not our own user.

    `capability` is what it keeps of root's rights, by number; None for nothing.
    """

    uid: int
    gid: int
    dropped: bool
    capability: int | None = None

    def own(self, path: Path) -> None:
        """Give a file or directory of ours to this user."""
        if self.dropped:
            os.chown(path, self.uid, self.gid, follow_symlinks=False)

    def stopped_at(self, path: Path) -> Path | None:
        """Return the first directory above `path` that stops this user; None if none does."""
        blocked = (parent for parent in reversed(path.parents) if not self._can_pass(parent))
        return next(blocked, None) if self.dropped else None

    def _can_pass(self, directory: Path) -> bool:
        found = directory.stat()
        if found.st_uid == self.uid:
            return bool(found.st_mode & stat.S_IXUSR)
        return bool(found.st_mode & (stat.S_IXGRP if found.st_gid == self.gid else stat.S_IXOTH))


def unprivileged(directory: Path) -> Identity:
    """Return who may own `directory`: us; or for root its owner, or else `nobody`."""
    if os.geteuid() != 0:
        return Identity(os.geteuid(), os.getegid(), dropped=False)
    owner = directory.stat() if directory.exists() else None
    if owner is not None and owner.st_uid != 0:
        return Identity(owner.st_uid, owner.st_gid, dropped=True)
    try:
        nobody = pwd.getpwnam("nobody")
    except KeyError:
        return Identity(_NOBODY, _NOBODY, dropped=True)
    return Identity(nobody.pw_uid, nobody.pw_gid, dropped=True)


def spawn(
    command: Sequence[str | Path],
    identity: Identity,
    *,
    output: BinaryIO,
    keep_open: Sequence[int] = (),
) -> subprocess.Popen[bytes]:
    """Start a process that gets SIGINT when the calling *thread* ends, by whatever cause.

    It is in a session of its own, so that a Ctrl-C in our terminal reaches us first.
    """
    return subprocess.Popen(
        [str(part) for part in command],
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=subprocess.STDOUT,
        # Nothing of our environment: PGDATA, PGPORT, LD_PRELOAD and locales would reach the server.
        env={"PATH": "/usr/bin:/bin", "LC_ALL": "C", "TZ": "UTC"},
        pass_fds=keep_open,
        start_new_session=True,
        preexec_fn=become(identity, os.getpid()),
    )


async def wait_exit(process: subprocess.Popen[bytes], seconds: float) -> bool:
    """Wait until the process ended, `seconds` at most; tell whether it did."""
    deadline = time.monotonic() + seconds
    while process.poll() is None:
        if time.monotonic() > deadline:
            return False
        await asyncio.sleep(_POLL_SECONDS)
    return True


def children(pid: int) -> list[int]:
    """Return the pids of the direct children of a process; empty if it is gone."""
    try:
        return [
            int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        ]
    except (FileNotFoundError, ProcessLookupError):
        return []


def passing_capability() -> int | None:
    """Return the capability of ours that lets a process pass any directory; None if we have none."""
    status = Path("/proc/self/status").read_text()
    held = int(status.partition("CapPrm:")[2].split(maxsplit=1)[0], 16)
    capabilities = (_CAP_DAC_READ_SEARCH, _CAP_DAC_OVERRIDE)
    return next((number for number in capabilities if held >> number & 1), None)


def become(identity: Identity, parent: int) -> Callable[[], None]:
    """Return what the child does before it becomes the program: change user, and end with us."""
    keep = identity.capability
    bit = 0 if keep is None else 1 << keep
    header = struct.pack("=Ii", _CAP_VERSION_3, 0)
    # effective, permitted, inheritable: the low words, then the high ones
    capabilities = struct.pack("=6I", bit, bit, bit, 0, 0, 0)

    def in_child() -> None:
        if identity.dropped:
            if keep is not None:
                # Without it access(2), which initdb asks about its programs, forgets the capability.
                _LIBC.prctl(_PR_SET_SECUREBITS, _SECBIT_NO_SETUID_FIXUP, 0, 0, 0)
            os.setgroups([])
            os.setgid(identity.gid)
            os.setuid(identity.uid)
            if keep is not None:
                _LIBC.capset(header, capabilities)
                _LIBC.prctl(_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_RAISE, keep, 0, 0)
        # After the change of user, which would undo it.
        _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGINT, 0, 0, 0)
        if os.getppid() != parent:  # it died before the line above
            os._exit(1)

    return in_child
