"""A disk that is full when a test says so: a small one of its own, or bounds on how much processes may write.

Where the machine lets us mount one, it is a tmpfs that is filled up. Elsewhere the kernel ends the writes of
the processes that are named (RLIMIT_FSIZE): as in the middle of a file, with an error of another number.
"""

from __future__ import annotations

import resource
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

_SIZE = 32 << 20
_BLOCK = 64 << 10


class ScarceDisk:
    """A disk at `directory`; `mounted` says that it is one of its own, of 32 MiB."""

    def __init__(self, directory: Path, *, mounted: bool) -> None:
        self.directory = directory
        self.mounted = mounted
        self._ballast = directory / "ballast"
        self._bounded: set[int] = set()

    def leave(self, room: int, *pids: int) -> None:
        """Leave so many bytes of room on the disk, or, without one, in each file of these processes."""
        if self.mounted:
            self._ballast.unlink(missing_ok=True)
            self._fill(room)
            return
        for pid in pids:
            _, hard = resource.prlimit(pid, resource.RLIMIT_FSIZE)
            resource.prlimit(pid, resource.RLIMIT_FSIZE, (room, hard))
            self._bounded.add(pid)

    def free(self) -> None:
        """Leave as much room as there was."""
        self._ballast.unlink(missing_ok=True)
        for pid in self._bounded:
            with suppress(ProcessLookupError):
                _, hard = resource.prlimit(pid, resource.RLIMIT_FSIZE)
                resource.prlimit(pid, resource.RLIMIT_FSIZE, (hard, hard))

    def _fill(self, room: int) -> None:
        weight = shutil.disk_usage(self.directory).free - room
        with self._ballast.open("wb") as ballast:
            for _ in range(weight // _BLOCK):
                ballast.write(b"\0" * _BLOCK)


@contextmanager
def scarce_disk(*, mounted: bool = True) -> Iterator[ScarceDisk]:
    """Give a disk; `mounted` False: without one of its own, as where none can be mounted."""
    directory = Path(tempfile.mkdtemp(prefix="holdfast-disk-"))
    mounted = mounted and _mount(directory)
    disk = ScarceDisk(directory, mounted=mounted)
    try:
        yield disk
    finally:
        disk.free()
        if mounted:
            subprocess.run(["umount", "--lazy", str(directory)], check=True)
        shutil.rmtree(directory)


def _mount(directory: Path) -> bool:
    command = ["mount", "-t", "tmpfs", "-o", f"size={_SIZE},mode=755", "holdfast", str(directory)]
    try:
        return subprocess.run(command, capture_output=True, check=False).returncode == 0
    except OSError:
        return False
