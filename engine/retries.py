"""How often a model turn is asked for again (docs/adr/0014).

Envoy asks again where no byte of an answer came. What it cannot see is a 200 whose stream breaks off, or
tells of a failure, before anything was generated: that is asked for again here, once a turn and within the
worker's budget. Such a request says `x-holdfast-once`, so that Envoy does not multiply it.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping

import msgspec

from engine.errors import EngineError, UpstreamFailed
from engine.ports.meters import NO_METERS, Meters
from engine.response.turn import TurnRequest

_log = logging.getLogger(__name__)

ONCE: Mapping[str, str] = {"x-holdfast-once": "1"}


class RetryBudget:
    """What the turns of one worker share: each that goes well earns a part of one that may be repeated.

    So a model server whose every stream fails is asked little more often than it would be anyway.
    """

    SHARE = 0.2

    def __init__(self, most: int = 10, meters: Meters = NO_METERS) -> None:
        self.spent = 0
        """Turns that were asked for again in this worker's life."""
        self._left = float(most)
        self._most = most
        self._meters = meters

    def earn(self) -> None:
        """Count a turn that went well."""
        self._left = min(self._most, self._left + self.SHARE)

    def spend(self, run: str, error: EngineError) -> bool:
        """Return whether a turn of `run` that failed may be asked for again; it is counted and logged."""
        granted = self._left >= 1
        self._meters.retry(granted=granted)
        if not granted:
            _log.warning(
                "%s: a turn failed, and the budget of retries is spent: %s", run, error.kind
            )
            return False
        self._left -= 1
        self.spent += 1
        _log.warning("%s: a turn is asked for again (%d so far): %s", run, self.spent, error.kind)
        return True


def passes(error: EngineError) -> bool:
    """Return whether another server, or the same one a moment later, may well do better."""
    return isinstance(error, UpstreamFailed) and error.passing


def once(turn: TurnRequest) -> TurnRequest:
    """Return the same turn as one that Envoy brings to one server only."""
    return msgspec.structs.replace(turn, headers={**turn.headers, **ONCE})
