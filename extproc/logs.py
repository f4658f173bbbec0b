"""Log lines of a worker: for people, or one JSON object each. Never content, never secrets."""

from __future__ import annotations

import logging
import sys
import time
from typing import Literal

from engine.api.json import encode


class JsonFormatter(logging.Formatter):
    """One JSON object a line: time (RFC 3339, UTC), level, worker, logger, message, traceback."""

    default_time_format = "%Y-%m-%dT%H:%M:%S"
    default_msec_format = "%s.%03dZ"
    converter = staticmethod(time.gmtime)

    def __init__(self, worker: str) -> None:
        super().__init__()
        self._worker = worker

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        line: dict[str, object] = {
            "time": self.formatTime(record),
            "level": record.levelname.lower(),
            "worker": self._worker,
            "logger": record.name,
            "message": record.getMessage(),
        }
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return encode(line).decode()


def configure(style: Literal["console", "json"], level: str, worker: str) -> None:
    """Send all log lines of this process to standard error."""
    output = logging.StreamHandler(sys.stderr)
    output.setFormatter(
        JsonFormatter(worker)
        if style == "json"
        else logging.Formatter("%(asctime)s %(levelname)-7s %(name)s: %(message)s")
    )
    logging.basicConfig(level=level.upper(), handlers=[output], force=True)
