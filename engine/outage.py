"""Outlasting a store that is away (rule P2)."""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Awaitable, Callable

from engine.errors import StorageUnavailable

_log = logging.getLogger(__name__)

# Seconds between two tries of the store.
_FIRST_PAUSE, _LONGEST_PAUSE = 0.1, 1.0


async def outlast(
    attempt: Callable[[bool], Awaitable[None]], what: str, seconds: float = math.inf
) -> None:
    """Await `attempt(again)` until the store takes it; raises StorageUnavailable after `seconds`.

    `again` is True where the outcome of an earlier attempt is unknown. `what` is who waits, for the log.
    """
    clock = asyncio.get_running_loop().time
    deadline = clock() + seconds
    pause, again = _FIRST_PAUSE, False
    while True:
        try:
            await attempt(again)
            return
        except StorageUnavailable as error:
            if clock() >= deadline:
                raise
            if not again:
                _log.warning("%s waits for the store: %s", what, error)
        await asyncio.sleep(pause)
        pause, again = min(pause * 2, _LONGEST_PAUSE), True
