"""What responses cost after their clients have left, so that an operator sees it."""

from __future__ import annotations

import logging

_log = logging.getLogger(__name__)


class Detached:
    """Counts over the life of a worker. `tokens` are output tokens, as far as the model tells them."""

    def __init__(self) -> None:
        self.runs = 0
        self.seconds = 0.0
        self.tokens = 0

    def count(self, response_id: str, seconds: float, tokens: int) -> None:
        """Add a run that has ended, with what it took since its client left."""
        self.runs += 1
        self.seconds += seconds
        self.tokens += tokens
        _log.info(
            "%s ran on for %.1f s and %d tokens after its client left",
            response_id,
            seconds,
            tokens,
        )
