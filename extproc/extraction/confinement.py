"""What a process that parses foreign bytes gives up first: network, files, memory, time, rights."""

from __future__ import annotations

import ctypes
import math
import os
import resource
import signal
from collections.abc import Sequence
from pathlib import Path

from extproc.extraction.bounds import Bounds
from extproc.extraction.seccomp import refuse_calls

_PR_SET_PDEATHSIG, _PR_SET_DUMPABLE, _PR_SET_NO_NEW_PRIVS = 1, 4, 38
_CLONE_NEWNET = 0x40000000
_NOBODY = 65534
_FILES = 64
# The worker kills at the deadline; this is for a worker that does not.
_GRACE = 5
_LIBC = ctypes.CDLL(None, use_errno=True)


def end_with(parent: int) -> None:
    """End this process when its parent ends; at once, if that has happened."""
    _control(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)


def without_network() -> None:
    """Leave the network, where the kernel lets us: as root, that is. No child of ours has it then."""
    _LIBC.unshare(_CLONE_NEWNET)


def close_all_but(kept: Sequence[int]) -> None:
    """Close every descriptor but the standard ones and these."""
    start = 3
    for descriptor in sorted(kept):
        os.closerange(start, descriptor)
        start = descriptor + 1
    os.closerange(start, resource.getrlimit(resource.RLIMIT_NOFILE)[0])


def confine(bounds: Bounds, template: int) -> bool:
    """Give up all that reading one document does not need; the process ends with its template.

    Returns whether calls of the kernel are refused, which not every kernel can do; raises OSError where
    anything else is not as it is to be. What has to be imported was imported: the files of our packages may
    not be readable for nobody.
    """
    if os.geteuid() == 0:
        os.setgroups([])
        os.setresgid(_NOBODY, _NOBODY, _NOBODY)
        os.setresuid(_NOBODY, _NOBODY, _NOBODY)
    _control(_PR_SET_NO_NEW_PRIVS, 1)
    # Another document's reader, which has the same user, cannot look into this one.
    _control(_PR_SET_DUMPABLE, 0)
    end_with(template)
    # SIGPROF comes to the point; behind it, for a reader that has become its document's, the limit.
    seconds = math.ceil(bounds.seconds) + _GRACE
    for limit, most in (
        (resource.RLIMIT_AS, _address_space() + bounds.memory_bytes),
        (resource.RLIMIT_CPU, seconds),
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_NOFILE, _FILES),
        (resource.RLIMIT_NPROC, 0),
        (resource.RLIMIT_CORE, 0),
    ):
        _, hard = resource.getrlimit(limit)
        # No higher than it is: only root could.
        most = most if hard == resource.RLIM_INFINITY else min(most, hard)
        resource.setrlimit(limit, (most, most))
    signal.setitimer(signal.ITIMER_PROF, bounds.seconds)
    signal.setitimer(signal.ITIMER_REAL, bounds.wall_seconds + _GRACE)
    return refuse_calls()


def _control(option: int, value: int) -> None:
    if _LIBC.prctl(option, value, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


def _address_space() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    return pages * resource.getpagesize()
