"""Who waits for a conversation: turns are made one after the other (rule M7).

Within a worker those who wait stand in a line, in the order in which they came; the first of them looks
whether the conversation is free. Workers do not know of each other: the store lets one of them in, and the
first of every other line goes on looking, at times that chance sets, so that none is always the last.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field

from engine.errors import ConversationMoved, NotFound, Stopped
from engine.ports import ConversationContext, ConversationStore

# Seconds between two looks of the first in line: more of them the longer it has waited.
_SOONEST, _LATEST = 0.01, 0.25

_Key = tuple[str, str]


@dataclass
class _Line:
    """One conversation's line: how many stand in it, and who is its first."""

    first: asyncio.Lock = field(default_factory=asyncio.Lock)
    length: int = 0


class Lines:
    """The lines of one worker; nobody waits for longer than `seconds`."""

    def __init__(self, store: ConversationStore, seconds: float) -> None:
        self.store = store
        self._seconds = seconds
        self._lines: dict[_Key, _Line] = {}
        self._waits: set[asyncio.Timeout] = set()
        self._stopped = False

    @property
    def waiting(self) -> int:
        """For how many conversations somebody waits, or is the first."""
        return len(self._lines)

    @contextmanager
    def visit(self) -> Iterator[Visit]:
        """Let one request wait, for one conversation; it has left its line at the end."""
        visit = Visit(self, asyncio.get_running_loop().time() + self._seconds)
        try:
            yield visit
        finally:
            visit.leave()

    def stop(self) -> None:
        """Send everybody away who waits, or comes to wait: the worker is about to end."""
        self._stopped = True
        for wait in self._waits:
            if not wait.expired():
                wait.reschedule(asyncio.get_running_loop().time())

    @asynccontextmanager
    async def until(self, deadline: float, conversation_id: str) -> AsyncIterator[None]:
        """End a wait that takes longer with ConversationMoved, and any wait with Stopped after `stop`."""
        if self._stopped:
            raise Stopped
        try:
            async with asyncio.timeout_at(deadline) as wait:
                self._waits.add(wait)
                try:
                    yield
                finally:
                    self._waits.discard(wait)
        except TimeoutError:
            raise Stopped if self._stopped else ConversationMoved(conversation_id) from None

    def has_first(self, key: _Key) -> bool:
        """Tell whether somebody stands in the line of a conversation."""
        return key in self._lines

    async def become_first(self, key: _Key) -> None:
        """Line up for a conversation of a tenant's, and return as the first."""
        line = self._lines.setdefault(key, _Line())
        line.length += 1
        try:
            await line.first.acquire()
        except BaseException:
            self._go(key)
            raise

    def leave(self, key: _Key) -> None:
        """Let the next one be the first."""
        self._lines[key].first.release()
        self._go(key)

    def _go(self, key: _Key) -> None:
        line = self._lines[key]
        line.length -= 1
        if not line.length:
            del self._lines[key]


class Visit:
    """One request's waiting; `deadline` is a time of the event loop."""

    def __init__(self, lines: Lines, deadline: float) -> None:
        self._lines = lines
        self._deadline = deadline
        self._place: _Key | None = None

    async def context(
        self, tenant: str, conversation_id: str, *, items: bool = True
    ) -> ConversationContext:
        """Return a conversation once nobody is before us and no response of it runs.

        We stay the first until `leave`. Raises NotFound, ConversationMoved past the deadline, and Stopped.
        """
        async with self._lines.until(self._deadline, conversation_id):
            if self._place is None:
                key = (tenant, conversation_id)
                if self._lines.has_first(key):
                    # Before we wait: what is not there must not look as if it were busy (rule X1).
                    await self._look(tenant, conversation_id, items=False)
                await self._lines.become_first(key)
                self._place = key
            pause = _SOONEST
            while True:
                found = await self._look(tenant, conversation_id, items=items)
                if not found.busy:
                    return found
                await asyncio.sleep(pause * (0.5 + random.random()))
                pause = min(_LATEST, pause * 1.5)

    def leave(self) -> None:
        """Let the next one look."""
        if self._place is not None:
            self._lines.leave(self._place)
            self._place = None

    async def _look(self, tenant: str, wanted: str, *, items: bool) -> ConversationContext:
        found = await self._lines.store.load_conversation(tenant, wanted, items=items)
        if found is None:
            raise no_conversation(wanted)
        return found


def no_conversation(wanted: str) -> NotFound:
    """Return the error for an id that the tenant has not; the same for whoever's it is (rule X1)."""
    return NotFound(f"Conversation with id '{wanted}' not found.")
