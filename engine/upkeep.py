"""Responses whose time has come are removed, a few at a time, so that no lock is held for long."""

from __future__ import annotations

import logging

from engine.chore import Chore
from engine.ports import RunStore

_log = logging.getLogger(__name__)

_SECONDS = 60.0
_AT_ONCE = 200


class Upkeep:
    """Removes expired responses while a worker lives; several workers do not hurt each other."""

    def __init__(self, store: RunStore) -> None:
        self._store = store
        self._removing = Chore(self._remove, _SECONDS, jitter=0.5)

    def start(self) -> None:
        """Begin."""
        self._removing.start()

    async def stop(self) -> None:
        """End."""
        await self._removing.stop()

    async def _remove(self) -> bool:
        removed = await self._store.remove_expired(limit=_AT_ONCE)
        if removed:
            _log.info("removed %d responses whose time had come", removed)
        return removed == _AT_ONCE
