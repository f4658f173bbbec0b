"""What a process that reads documents can no longer do, tried in one."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[4]

# Prepared before and tried behind the confinement, each by itself; exits with 0 where it was refused.
_TRIAL = """
import ctypes, os, resource, signal, socket, sys
from extproc.extraction.bounds import Bounds
from extproc.extraction.confinement import close_all_but, confine, without_network

def opened(): open("/dev/null").read()
def written(): os.write(kept, b"x" * 10)
def connected(): socket.socket(socket.AF_INET, socket.SOCK_STREAM).connect(("127.0.0.1", 9))
def local(): socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
def forked(): os.fork() or os._exit(0)
def ran(): os.execv("/bin/false", ["false"])
def killed(): os.kill(os.getppid(), 0)
def traced(): check(ctypes.CDLL(None, use_errno=True).ptrace(16, os.getppid(), 0, 0))
def removed(): os.unlink(sys.argv[2])
def filled(): bytes(200 << 20)
def inherited(): os.fstat(other)

def check(result):
    if result < 0: raise OSError

with open(sys.argv[2], "wb", buffering=0) as file:
    kept = file.fileno()
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    other = os.dup(0)
    without_network()
    close_all_but([kept])
    names = ("text_bytes", "pages", "entries", "unpacked_bytes", "ratio")
    confine(Bounds(**dict.fromkeys(names, 1), seconds=5, memory_bytes=100 << 20), os.getppid())
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
        *("forked", "ran", "killed", "traced", "filled"),
    ],
)
def test_a_reader_can_do_nothing_but_read(act: str, tmp_path: Path) -> None:
    """X3, X4, X5: no files, no network, no processes, no more memory than it was given."""
    trial = subprocess.run(
        [sys.executable, "-c", _TRIAL, act, str(tmp_path / "file")],
        env={"PYTHONPATH": str(ROOT)},
        timeout=60,
        capture_output=True,
        check=False,
    )
    assert (trial.returncode, trial.stderr) == (0, b"")
    assert (tmp_path / "file").read_bytes() == b""
