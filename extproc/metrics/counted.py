"""Requests, counted by every adapter in the same way: what was asked, and the class of what was answered."""

from __future__ import annotations

import asyncio

from extproc.metrics.declared import UNKNOWN
from extproc.metrics.meters import RequestMeters
from extproc.routes import Operation


class Door:
    """Where exchanges come in; `open` is how many there are now."""

    def __init__(self, meters: RequestMeters) -> None:
        self.open = 0
        self.meters = meters

    def enter(self) -> Visit:
        """Let an exchange in; to be left when it is over."""
        self.open += 1
        return Visit(self)


class Visit:
    """One exchange. What is not known when it ends is told as it is: unknown."""

    def __init__(self, door: Door) -> None:
        self.operation = UNKNOWN
        self.tenant = ""
        self.status: int | None = None
        """What was answered, where anything was."""
        self.counts = True
        """False where the request is counted elsewhere, or none of ours."""
        self._door = door
        self._clock = asyncio.get_running_loop().time
        self._began = self._clock()

    def asks(self, operation: Operation) -> None:
        """Note what was asked for."""
        self.operation = operation.value

    def leave(self) -> None:
        """Count it."""
        self._door.open -= 1
        if self.counts:
            status = "left" if self.status is None else f"{self.status // 100}xx"
            seconds = self._clock() - self._began
            self._door.meters.request(self.operation, status, self.tenant, seconds)


UNCOUNTED = Door(RequestMeters())
"""For adapters that nobody gave a door."""
