"""What responses cost after their clients have left, so that an operator sees it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from engine.ports.meters import NO_METERS, Meters

_log = logging.getLogger(__name__)


class Detached:
    """Counts over the life of a worker. `tokens` are output tokens, as far as the model tells them."""

    def __init__(self, meters: Meters = NO_METERS) -> None:
        self._meters = meters
        self.runs = 0
        self.seconds = 0.0
        self.tokens = 0

    def count(self, response_id: str, seconds: float, tokens: int) -> None:
        """Add a run that has ended, with what it took since its client left."""
        self.runs += 1
        self.seconds += seconds
        self.tokens += tokens
        self._meters.detached(seconds, tokens)
        _log.info(
            "%s ran on for %.1f s and %d tokens after its client left",
            response_id,
            seconds,
            tokens,
        )


class Absence:
    """From when on a run has no client. `over` is called once that has lasted `seconds` (rule P3)."""

    def __init__(self, seconds: float, deltas: int, over: Callable[[], None]) -> None:
        loop = asyncio.get_running_loop()
        self._clock = loop.time
        self._since = loop.time()
        self._deltas = deltas
        self._limit = loop.call_later(seconds, over)

    def end(self, counted: Detached, response_id: str, made: int) -> None:
        """Count it: the run is over, with so many tokens `made` in all."""
        self._limit.cancel()
        counted.count(response_id, self._clock() - self._since, max(0, made - self._deltas))
