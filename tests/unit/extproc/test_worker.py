"""`extproc.worker`: a worker's process."""

from __future__ import annotations

import subprocess
import sys

# The part that serves is not started: what is asked is the state of the process in which it would.
_SCRIPT = """
import gc, sys
from contextlib import asynccontextmanager
from extproc import worker

class Built:
    async def serve(self, stop):
        print(gc.isenabled(), gc.get_freeze_count(), *gc.get_threshold())

@asynccontextmanager
async def built(settings, index):
    yield Built()

worker.worker = built
sys.exit(worker.main([]))
"""


def test_the_collector_passes_over_what_a_worker_starts_with() -> None:
    """X5: a full collection stops the worker for as long as there is to look at."""
    done = subprocess.run(
        [sys.executable, "-c", _SCRIPT],
        env={"HOLDFAST_SIDECAR__NAME": "w", "PYTHONPATH": ":".join(sys.path)},
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    enabled, frozen, young, *_ = done.stdout.split()
    assert enabled == "True"
    assert int(frozen) > 50_000
    assert int(young) >= 10_000
