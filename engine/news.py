"""What happens to a run outside of its turns: its client leaves, it is cancelled, its lease is lost.

News ends whatever the run waits for within a step of the event loop, but only where that may be given up:
inside of a `step`. A cancellation of the task would also hit what must not be cut, the saving.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from engine.response.inputs import Ending


class News:
    """`ending` is how the response is to end; the first news counts."""

    def __init__(self) -> None:
        self.ending: Ending | None = None
        self._step: asyncio.Timeout | None = None

    def break_in(self, ending: Ending) -> None:
        """End the step that runs, or the next one before it begins."""
        if self.ending is None:
            self.ending = ending
        if self._step is not None and not self._step.expired():
            self._step.reschedule(asyncio.get_running_loop().time())

    @asynccontextmanager
    async def step(self, seconds: float | None = None) -> AsyncGenerator[None, None]:
        """Bound what is done inside; raises TimeoutError where news came, or `seconds` passed."""
        try:
            async with asyncio.timeout(seconds) as self._step:
                yield
        finally:
            self._step = None
