"""Slots of a worker that tenants share: who has the fewest gets the next, so that lines do not mix."""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


class FairSlots:
    """`count` slots, of which one tenant has at most `most` at a time.

    A tenant's own come in order. Between tenants that have equally many it goes round.
    """

    def __init__(self, count: int, *, most: int | None = None) -> None:
        self._free = count
        self._most = count if most is None else most
        self._taken: Counter[str] = Counter()
        # The tenant that was served last stands last.
        self._lines: dict[str, deque[asyncio.Future[None]]] = {}

    @asynccontextmanager
    async def slot(self, tenant: str) -> AsyncIterator[None]:
        """Wait for a slot and have it for the time of the block."""
        await self.take(tenant)
        try:
            yield
        finally:
            self.give_back(tenant)

    async def take(self, tenant: str) -> None:
        """Wait for a slot, which somebody has to give back; a cancelled wait has taken none."""
        turn = asyncio.get_running_loop().create_future()
        self._lines.setdefault(tenant, deque()).append(turn)
        self._serve()
        try:
            await turn
        except asyncio.CancelledError:
            if turn.cancelled():
                self._leave(tenant, turn)
            else:
                self.give_back(tenant)
            raise

    def give_back(self, tenant: str) -> None:
        """Let the next one have a slot that this tenant took."""
        self._free += 1
        self._taken[tenant] -= 1
        if not self._taken[tenant]:
            del self._taken[tenant]
        self._serve()

    def _serve(self) -> None:
        while self._free and self._lines:
            tenant = min(self._lines, key=lambda each: self._taken[each])
            if self._taken[tenant] >= self._most:
                return
            line = self._lines.pop(tenant)
            turn = line.popleft()
            if line:
                self._lines[tenant] = line
            if not turn.done():
                self._free -= 1
                self._taken[tenant] += 1
                turn.set_result(None)

    def _leave(self, tenant: str, turn: asyncio.Future[None]) -> None:
        line = self._lines.get(tenant)
        if line is not None and turn in line:
            line.remove(turn)
            if not line:
                del self._lines[tenant]
