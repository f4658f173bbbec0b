"""The calls of the kernel that a reader of documents has a use for; it has all that it needs open already.

Where workers run as an ordinary user, which is what containers do, readers have that user too; without this
one that has become its document's could open the worker's memory, or end the worker. What is not named here
is refused: a kernel learns new ways to reach other processes with every release.
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import struct

_PR_GET_SECCOMP, _PR_SET_SECCOMP, _SECCOMP_MODE_FILTER = 21, 22, 2
_ALLOW, _ERRNO, _KILL = 0x7FFF_0000, 0x0005_0000, 0x8000_0000
_LOAD, _EQUAL, _AT_LEAST, _RETURN = 0x20, 0x15, 0x35, 0x06
# Offsets in what a filter sees of a call; both processors have the lower half of an argument first.
_NUMBER, _ARCHITECTURE, _SECOND = 0, 4, 24
# A second set of numbers for the same calls, on x86-64.
_X32 = 0x4000_0000

_ARCHITECTURES = {"x86_64": (0xC000_003E, 0), "aarch64": (0xC000_00B7, 1)}
# By name: the number on x86-64, and on AArch64 where there is one.
_ALLOWED: dict[str, tuple[int, int | None]] = {
    # what is open
    "read": (0, 63),
    "readv": (19, 65),
    "pread64": (17, 67),
    "lseek": (8, 62),
    "write": (1, 64),
    "writev": (20, 66),
    "sendto": (44, 206),
    "sendmsg": (46, 211),
    "shutdown": (48, 210),
    "poll": (7, None),
    "ppoll": (271, 73),
    "dup": (32, 23),
    "close": (3, 57),
    # what a file is like: where modules look for others, this has to fail as it does without a file
    "fstat": (5, 80),
    "newfstatat": (262, 79),
    "stat": (4, None),
    "lstat": (6, None),
    "statx": (332, 291),
    "getcwd": (79, 17),
    # memory
    "brk": (12, 214),
    "mmap": (9, 222),
    "mprotect": (10, 226),
    "mremap": (25, 216),
    "munmap": (11, 215),
    "madvise": (28, 233),
    # time, chance, and who one is
    "clock_gettime": (228, 113),
    "clock_getres": (229, 114),
    "clock_nanosleep": (230, 115),
    "nanosleep": (35, 101),
    "gettimeofday": (96, 169),
    "time": (201, None),
    "times": (100, 153),
    "getrusage": (98, 165),
    "getitimer": (36, 102),
    "getrandom": (318, 278),
    "getpid": (39, 172),
    "getppid": (110, 173),
    "gettid": (186, 178),
    "getuid": (102, 174),
    "geteuid": (107, 175),
    "getgid": (104, 176),
    "getegid": (108, 177),
    "uname": (63, 160),
    "sysinfo": (99, 179),
    "getcpu": (309, 168),
    "sched_getaffinity": (204, 123),
    # its own threads and signals
    "futex": (202, 98),
    "set_robust_list": (273, 99),
    "rseq": (334, 293),
    "membarrier": (324, 283),
    "sched_yield": (24, 124),
    "rt_sigaction": (13, 134),
    "rt_sigprocmask": (14, 135),
    "rt_sigreturn": (15, 139),
    "sigaltstack": (131, 132),
    "restart_syscall": (219, 128),
    "exit": (60, 93),
    "exit_group": (231, 94),
}
# Not what names a process that is to get a signal when something happens to a file (F_SETOWN).
_FCNTL = (72, 25)
_F_GETFD, _F_SETFD, _F_GETFL, _F_DUPFD_CLOEXEC = 1, 2, 3, 1030
_FCNTL_ALLOWED = (_F_GETFD, _F_SETFD, _F_GETFL, _F_DUPFD_CLOEXEC)


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("filter", ctypes.c_char_p))


def refuse_calls() -> bool:
    """Have all other calls fail from now on (EPERM); False where kernel or processor have no such filter.

    Raises OSError where they have, and it is not in force.
    """
    known = _ARCHITECTURES.get(platform.machine())
    libc = ctypes.CDLL(None, use_errno=True)
    if known is None:
        return False
    if libc.prctl(_PR_GET_SECCOMP, 0, 0, 0, 0) < 0 and ctypes.get_errno() == errno.EINVAL:
        return False
    steps = _steps(*known)
    packed = b"".join(struct.pack("=HBBI", *step) for step in steps)
    program = _Program(len(steps), packed)
    if libc.prctl(_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, ctypes.byref(program), 0, 0) != 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return True


def _steps(architecture: int, column: int) -> list[tuple[int, int, int, int]]:
    """Return the filter: (code, steps to jump over if so, if not so, value)."""
    numbers = [pair[column] for pair in _ALLOWED.values()]
    allowed = [number for number in numbers if number is not None]
    commands = _FCNTL_ALLOWED
    # Behind the tests come: refuse, allow, kill.
    tests = [(_EQUAL, len(allowed) - at, 0, number) for at, number in enumerate(allowed)]
    to_allow = len(commands) + 1 + len(tests)
    fcntl = [
        (_EQUAL, 0, len(commands) + 2, _FCNTL[column]),
        (_LOAD, 0, 0, _SECOND),
        *((_EQUAL, to_allow - at, 0, command) for at, command in enumerate(commands)),
        (_RETURN, 0, 0, _ERRNO | errno.EPERM),
    ]
    to_kill = len(fcntl) + len(tests) + 2
    return [
        (_LOAD, 0, 0, _ARCHITECTURE),
        (_EQUAL, 0, to_kill + 2, architecture),
        (_LOAD, 0, 0, _NUMBER),
        (_AT_LEAST, to_kill, 0, _X32),
        *fcntl,
        *tests,
        (_RETURN, 0, 0, _ERRNO | errno.EPERM),
        (_RETURN, 0, 0, _ALLOW),
        (_RETURN, 0, 0, _KILL),
    ]
