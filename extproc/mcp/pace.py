"""How often a server may have itself asked again.

A server ends an event stream, says when it wants to be asked for it again, and may say "at once" for
ever: the SDK does as it is told.
"""

from __future__ import annotations

import asyncio
from collections import deque

_WINDOW = 60.0


class Pace:
    """Holds a request back for `pause` seconds where there were `free` in the minute before it.

    Those that are held back wait beside each other: the stream of one call not for those of others.
    """

    def __init__(self, free: int, pause: float) -> None:
        self._pause = pause
        self._loop = asyncio.get_running_loop()
        self._newest: deque[float] = deque(maxlen=free)

    async def wait(self) -> None:
        """Return when a request may be sent."""
        now = self._loop.time()
        newest = self._newest
        often = len(newest) == newest.maxlen and now - newest[0] < _WINDOW
        newest.append(now)
        if often:
            await asyncio.sleep(self._pause)
