"""Other processes, as /proc shows them."""

from __future__ import annotations

from pathlib import Path

from tests.support.stack import memory

__all__ = ["alive", "busy", "children", "command", "descriptors", "environment", "memory", "status"]


def alive(pid: int) -> bool:
    """True if a process runs: one that waits to be reaped does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def children(pid: int | None) -> set[int]:
    """Return the direct children of a process; none if it is gone."""
    try:
        return set(map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split()))
    except (FileNotFoundError, ProcessLookupError):
        return set()


def descriptors(pid: int) -> int:
    """Return how many descriptors a process has open."""
    return len(list(Path(f"/proc/{pid}/fd").iterdir()))


def status(pid: int) -> str:
    """Return what the kernel says of a process."""
    return Path(f"/proc/{pid}/status").read_text()


def environment(pid: int) -> bytes:
    """Return the environment that a process was started with."""
    return Path(f"/proc/{pid}/environ").read_bytes()


def command(pid: int) -> bytes:
    """Return the command line of a process; nothing if it is gone."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return b""


def busy(pid: int) -> bool:
    """True if a process has computed for some time, 50 ms, since it was made."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return False
    return int(fields[11]) + int(fields[12]) >= 5
