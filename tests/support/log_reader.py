"""The simplest reader of an event log: it asks again until the terminal event is there."""

from __future__ import annotations

import asyncio

from engine import sse
from engine.errors import NotFound
from engine.ports import Reply, RunStore
from tests.support.frames import numbered


class LogReader:
    """`engine.responses.Following` without heartbeats, wake-ups and bounds."""

    def __init__(self, store: RunStore) -> None:
        self._store = store

    async def follow(self, tenant: str, response_id: str, after: int, reply: Reply) -> None:
        """Send what is logged above `after`, until the response has ended."""
        opened = False
        while True:
            read = await self._store.read_events(tenant, response_id, after=after, limit=10_000)
            if read is None:
                raise NotFound(f"Response with id '{response_id}' not found.")
            if not opened:
                await reply.open()
                opened = True
            for batch in read.batches:
                frames = [frame for number, frame in numbered(batch.frames) if number > after]
                if frames:
                    await reply.write(b"".join(frames))
                after = max(after, batch.last)
            if read.status not in ("queued", "in_progress") and not read.more:
                break
            await asyncio.sleep(0 if read.batches else 0.01)
        await reply.write(sse.DONE)
        await reply.end()
