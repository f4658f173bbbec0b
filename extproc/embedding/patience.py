"""How often, and for how long, what may pass is tried again."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from typing import TypeVar

import msgspec

from engine.errors import EmbeddingFailed

T = TypeVar("T")

_FIRST_PAUSE = 0.25
_LONGEST_PAUSE = 8.0


class Patience(msgspec.Struct, frozen=True):
    """At most `retries` further attempts, and `seconds` for everything together."""

    seconds: float
    retries: int
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep

    def deadline(self) -> float:
        """Return when what begins now has to have ended, by the clock of the loop."""
        return asyncio.get_running_loop().time() + self.seconds

    async def keep_trying(self, attempt: Callable[[], Awaitable[T]], deadline: float) -> T:
        """Return what an attempt returns; raises EmbeddingFailed, as the last attempt did.

        Only what may pass is tried again, after the pause that the server asks for or a growing one. A server
        that asks for more time than is left is not waited for.
        """
        tried = 0
        while True:
            try:
                return await self._until(attempt, deadline)
            except EmbeddingFailed as failed:
                pause = max(_pause(tried), float(failed.retry_after or 0))
                late = asyncio.get_running_loop().time() + pause >= deadline
                if not failed.passing or tried >= self.retries or late:
                    raise
            tried += 1
            await self.sleep(pause)

    async def _until(self, attempt: Callable[[], Awaitable[T]], deadline: float) -> T:
        try:
            async with asyncio.timeout_at(deadline):
                return await attempt()
        except TimeoutError:
            raise EmbeddingFailed(
                "The embedding model did not answer in time.", passing=True
            ) from None


def _pause(tried: int) -> float:
    """Return the pause after a failure: twice as long each time, and never the same for all workers."""
    longest = min(_LONGEST_PAUSE, _FIRST_PAUSE * 2.0**tried)
    return longest * random.uniform(0.5, 1.0)
