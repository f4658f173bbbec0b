"""The graph of the local model on disk: made once, by a process of its own, and never used when broken.

Its name ends with the digest of its content, so that a file that was cut, or written over, is known by its
name. It is renamed into place whole; several workers that begin at once wait for the first.
"""

from __future__ import annotations

import fcntl
import hashlib
import logging
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from extproc.embedding.minilm_graph import REVISION

_log = logging.getLogger(__name__)
_BUILD_SECONDS = 300


def built_graph(files: Path, cache: Path, name: str) -> Path:
    """Return the graph of the model in the directory `files`, made in `cache` if no whole one is there.

    Raises OSError where the cache cannot be written, RuntimeError where the graph cannot be made.
    """
    stem = f"{name}-r{REVISION}-"
    if (found := _whole(cache, stem)) is not None:
        return found
    cache.mkdir(parents=True, exist_ok=True)
    with (cache / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        return _whole(cache, stem) or _build(files, cache, stem)


def _whole(cache: Path, stem: str) -> Path | None:
    """Return a graph whose content is what its name says; what is broken is removed."""
    for found in sorted(cache.glob(f"{stem}*.onnx")):
        if found.stem == stem + _digest(found):
            return found
        _log.warning("the graph %s is broken; it is made again", found)
        found.unlink(missing_ok=True)
    return None


def _build(files: Path, cache: Path, stem: str) -> Path:
    """Make the graph in another process, which takes what that needs of memory with it."""
    _log.info("making the graph of the local embedding model in %s", cache)
    with tempfile.TemporaryDirectory(dir=cache, prefix=".building-") as directory:
        made = Path(directory) / "graph.onnx"
        command = [sys.executable, "-m", "extproc.embedding.minilm_graph", str(files), str(made)]
        done = subprocess.run(command, capture_output=True, timeout=_BUILD_SECONDS, check=False)
        if done.returncode != 0:
            told = done.stderr.decode("utf-8", "replace").strip().rpartition("\n")[2]
            raise RuntimeError(f"the graph of the embedding model cannot be made: {told}")
        with made.open("rb") as written:
            os.fsync(written.fileno())
        return made.rename(cache / f"{stem}{_digest(made)}.onnx")


def _digest(file: Path) -> str:
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()
