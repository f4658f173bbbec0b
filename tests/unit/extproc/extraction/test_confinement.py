"""What a process that reads documents can no longer do, tried in one."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from engine.errors import ExtractionFailed
from extproc.extraction.documents import open_extraction
from extproc.settings_extraction import Extraction

ROOT = Path(__file__).parents[4]

# Prepared before and tried behind the confinement, each by itself; exits with 0 where it was refused. What is
# refused by user as well is tried on the process itself: the filter does not look at whose a process is.
_TRIAL = """
import ctypes, fcntl, os, resource, signal, socket, sys
from extproc.extraction.bounds import Bounds
from extproc.extraction.confinement import close_all_but, confine, without_network

def opened(): open("/dev/null").read()
def written(): os.write(kept, b"x" * 10)
def connected(): socket.socket(socket.AF_INET, socket.SOCK_STREAM).connect(("127.0.0.1", 9))
def local(): socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
def forked(): os.fork() or os._exit(0)
def ran(): os.execv("/bin/false", ["false"])
def killed(): os.kill(os.getpid(), 0)
def queued(): called((129, 138), os.getpid(), 0, info)
def queued_to_a_thread(): called((297, 240), os.getpid(), os.getpid(), 0, info)
def told_of_files(): fcntl.fcntl(kept, fcntl.F_SETOWN, os.getpid())
def told_of_terminals(): called((16, 29), kept, 0x8901, info)
def slowed(): called((141, 140), 0, 0, 19)
def moved(): os.sched_setaffinity(0, os.sched_getaffinity(0))
def shared(): called((29, 194), 0, 4096, 0o1600)
def undone(): called((157, 167), 4, 1, 0, 0, 0)
def traced(): check(ctypes.CDLL(None, use_errno=True).ptrace(16, os.getppid(), 0, 0))
def removed(): os.unlink(sys.argv[2])
def filled(): bytes(200 << 20)
def inherited(): os.fstat(other)

def check(result):
    if result < 0: raise OSError

def called(numbers, *values):
    # By its number on this processor; `info` is a siginfo that the kernel takes from anybody.
    check(libc.syscall(numbers[os.uname().machine == "aarch64"], *values))

libc = ctypes.CDLL(None, use_errno=True)
info = (ctypes.c_int * 32)(0, 0, -1)

with open(sys.argv[2], "wb", buffering=0) as file:
    kept = file.fileno()
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    other = os.dup(0)
    without_network()
    close_all_but([kept])
    names = ("text_bytes", "pages", "entries", "unpacked_bytes", "ratio")
    numbers = dict.fromkeys(names, 1)
    confine(Bounds(**numbers, seconds=5, wall_seconds=50, memory_bytes=100 << 20), os.getppid())
    assert signal.getitimer(signal.ITIMER_REAL)[0] > 0
    bytes(50 << 20)
    try:
        globals()[sys.argv[1]]()
    except (OSError, MemoryError):
        os._exit(0)
os._exit(1)
"""


@pytest.mark.parametrize(
    "act",
    [
        *("opened", "written", "removed", "inherited", "connected", "local"),
        *("forked", "ran", "killed", "queued", "queued_to_a_thread", "told_of_files"),
        *("told_of_terminals", "slowed", "moved", "shared", "undone", "traced", "filled"),
    ],
)
def test_a_reader_can_do_nothing_but_read(act: str, tmp_path: Path) -> None:
    """X3, X4, X5: no files, no network, no processes, no more memory than it was given."""
    trial = ran(_TRIAL, act, str(tmp_path / "file"))
    assert (trial.returncode, trial.stderr) == (0, b"")
    assert (tmp_path / "file").read_bytes() == b""


def test_a_filter_that_is_not_in_force_is_an_error() -> None:
    """X4: a kernel that has it and does not take it, as one that is asked by who may not ask."""
    trial = ran(
        "import ctypes; from extproc.extraction.seccomp import refuse_calls\n"
        "ctypes.CDLL(None).prctl(38, 1, 0, 0, 0)\n"
        "assert refuse_calls()\n"
        "try: refuse_calls()\n"
        "except PermissionError: print('refused')"
    )
    assert (trial.stdout, trial.stderr) == (b"refused\n", b"")


# A Python whose processes are refused PR_SET_SECCOMP: around a container somebody may do that.
_FORBIDDING = """#!{python}
import ctypes, os, runpy, struct, sys
libc = ctypes.CDLL(None)
prctl = 167 if os.uname().machine == "aarch64" else 157
steps = [(0x20, 0, 0, 0), (0x15, 0, 3, prctl), (0x20, 0, 0, 16), (0x15, 0, 1, 22),
         (0x06, 0, 0, 0x50001), (0x06, 0, 0, 0x7FFF0000)]
packed = b"".join(struct.pack("=HBBI", *step) for step in steps)
class Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("filter", ctypes.c_char_p))
libc.prctl(38, 1, 0, 0, 0)
assert libc.prctl(22, 2, ctypes.byref(Program(len(steps), packed)), 0, 0) == 0
sys.argv = sys.argv[-3:]
sys.path.insert(0, os.environ["PYTHONPATH"])
runpy.run_module("extproc.extraction", run_name="__main__")
"""


async def test_no_document_is_read_where_the_filter_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """X4, H1: it fails for a reason that is not the document's, and the log says why."""
    forbidding = tmp_path / "python"
    forbidding.write_text(_FORBIDDING.format(python=sys.executable))
    forbidding.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(forbidding))
    async with open_extraction(Extraction()) as documents:
        with pytest.raises(ExtractionFailed, match="could not be confined") as failed:
            await documents.text("a.txt", _pieces(b"text"), most=100)
    assert not failed.value.died
    assert "documents are not read" in caplog.text


async def _pieces(data: bytes) -> AsyncIterator[bytes]:
    yield data


def ran(*arguments: str) -> subprocess.CompletedProcess[bytes]:
    """Return what became of a program and its arguments in a Python of its own."""
    return subprocess.run(
        [sys.executable, "-c", *arguments],
        env={"PYTHONPATH": str(ROOT)},
        timeout=60,
        capture_output=True,
        check=False,
    )
