"""`python -m extproc.demo`: serves the demo model on a unix socket or a port until told to stop."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence

from aiohttp import web

from extproc.demo.app import DemoModel

# A pleasant reading pace: about forty words a second.
DELAY = 0.025


def main(argv: Sequence[str] | None = None) -> None:
    """Serves until SIGINT or SIGTERM."""
    options = _options(argv)
    web.run_app(
        DemoModel(options.delay).app(),
        path=options.socket,
        host=None if options.socket else options.host,
        port=None if options.socket else options.port,
        print=_announcement(options),
        access_log=None,
        handler_cancellation=True,
        # A stream that is cut by a shutdown is a demo that was stopped; nobody waits for it.
        shutdown_timeout=1.0,
    )


def _announcement(options: argparse.Namespace) -> Callable[[str], None]:
    """Says on stdout that the sockets are open: one line, for people and for whoever started us."""

    def announce(_: str) -> None:
        where = options.socket or f"{options.host}:{options.port}"
        sys.stdout.write(f"demo model (no GPU, canned answers) listening on {where}\n")
        sys.stdout.flush()

    return announce


def _options(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m extproc.demo", description=__doc__)
    parser.add_argument("--socket", metavar="PATH", help="listen on this unix socket, not on TCP")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8000)
    parser.add_argument("--delay", type=float, default=DELAY, help="seconds between two tokens")
    return parser.parse_args(argv)


if __name__ == "__main__":
    main()
