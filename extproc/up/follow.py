"""Runs a command that dies with its parent: `python follow.py PARENT_PID COMMAND …`.

The rule it keeps: no child survives a supervisor that was killed with SIGKILL. The kernel is asked
to kill this process when its parent ends, and then the command takes this process's place. A file
of its own, and not code between fork and exec, because the supervisor has threads (gRPC's).
"""

from __future__ import annotations

import ctypes
import os
import resource
import signal
import sys

_PR_SET_PDEATHSIG = 1  # linux/prctl.h


def main() -> None:
    """Tie this process to its parent and become the command."""
    parent, command = int(sys.argv[1]), sys.argv[2:]
    # A core file would hold conversations and credentials.
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if sys.platform == "linux":
        prctl = ctypes.CDLL(None, use_errno=True).prctl
        if prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0) != 0:
            raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG) failed")
    if os.getppid() != parent:
        # The parent ended before we asked.
        raise SystemExit(1)
    os.execvp(command[0], command)


if __name__ == "__main__":
    main()
