"""The one place that writes to the terminal, and how a supervisor's remarks are written.

Results go to standard output and remarks to standard error, so that `holdfast config > file` holds
the config alone.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from typing import Literal

Report = Callable[[str], None]


def say(text: str) -> None:
    """Write a line of the command's result."""
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def warn(text: str) -> None:
    """Write a line that is about the command."""
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()


def log_report(log_format: Literal["console", "json"]) -> Report:
    """Return a report that writes log lines, for a supervisor without a person watching it."""

    def report(text: str) -> None:
        now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        if log_format == "json":
            line = {"time": now, "level": "info", "logger": "holdfast.supervisor", "message": text}
            warn(json.dumps(line))
        else:
            warn(f"{now} info holdfast.supervisor {text}")

    return report
