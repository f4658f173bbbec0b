"""Log lines of a worker: for people, or one JSON object each. Never content, never secrets."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Mapping
from typing import Literal

from engine.account import CURRENT, Fact
from engine.api.json import encode


class JsonFormatter(logging.Formatter):
    """One JSON object a line: time (RFC 3339, UTC), level, worker, logger, message, ids, traceback."""

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
            **_fields(record),
        }
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return encode(line).decode()


class ConsoleFormatter(logging.Formatter):
    """A line for people: time, level, logger, message, and ids behind it as `name=value`."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)-7s %(name)s: %(message)s%(fields_shown)s")

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        # As JSON, so that a name that came from outside cannot begin a line of its own.
        shown = (f" {name}={encode(value).decode()}" for name, value in _fields(record).items())
        record.fields_shown = "".join(shown)
        return super().format(record)


class Correlated(logging.Filter):
    """Gives each line that is written within a run the ids of its response."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Return True, always."""
        account = CURRENT.get()
        if account is not None:
            record.fields = {**account.ids(), **getattr(record, "fields", {})}
        return True


def _fields(record: logging.LogRecord) -> Mapping[str, Fact]:
    fields: Mapping[str, Fact] = getattr(record, "fields", {})
    return fields


def configure(style: Literal["console", "json"], level: str, worker: str) -> None:
    """Send all log lines of this process to standard error."""
    output = logging.StreamHandler(sys.stderr)
    output.setFormatter(JsonFormatter(worker) if style == "json" else ConsoleFormatter())
    output.addFilter(Correlated())
    logging.basicConfig(level=level.upper(), handlers=[output], force=True)
