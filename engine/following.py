"""Streams served from their event logs: resumed, followed live, or read long after their end (rule P6).

A follower sends the events behind the one that its client saw last, then what is added, up to the terminal
one. It reads by pages, one after the other, as its client takes them; nothing is held for a client that
does not read. What is new comes from one `Watch` per response, which all its followers here share.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from contextlib import suppress
from typing import TypeVar

from engine import sse
from engine.api.error import stream_error
from engine.api.events import EventWriter
from engine.errors import EngineError, InvalidRequest, NotFound, Stopped
from engine.limits import Limits
from engine.outage import outlast
from engine.ports import EventBatch, LoggedEvents, Reply, RunStore
from engine.response.notes import without_held
from engine.watch import Watch

# Bytes of a page, about.
_PAGE = 64 << 10
_UNFINISHED = ("queued", "in_progress")

T = TypeVar("T")


class Following:
    """Serves the followers of one worker."""

    def __init__(self, store: RunStore, limits: Limits) -> None:
        self._store = store
        self._limits = limits
        # Ids are unique over all tenants, and a follower joins after it was shown to own the response.
        self._watches: dict[str, Watch] = {}
        self._stopped = False

    def notify(self, response_id: str) -> None:
        """Say that this worker has just changed the log or the state of a response."""
        watch = self._watches.get(response_id)
        if watch is not None:
            watch.wake()

    def stop(self) -> None:
        """End all followers: their worker stops, and they can go on elsewhere."""
        self._stopped = True
        for watch in self._watches.values():
            watch.fail(Stopped())

    async def follow(self, tenant: str, response_id: str, after: int, reply: Reply) -> None:
        """Open the reply, send it the events numbered above `after` (-1: all), and end it.

        Raises NotFound, InvalidRequest (the response has no log) and StorageUnavailable before anything
        is sent. Later on these are an `error` event that ends the stream.
        """
        page = await self._store.read_events(tenant, response_id, after=after, limit=_PAGE)
        if page is None:
            raise _not_found(response_id)
        if not page.streamed:
            raise InvalidRequest(
                f"Response '{response_id}' was not created with stream=true: it has no events.",
                param="stream",
                code="response_not_streamed",
            )
        await reply.open()
        follower = _Follower(self, tenant, response_id, after, reply)
        try:
            await follower.run(page)
        except EngineError as error:
            await reply.write(_cut(error, follower.after))
        else:
            await reply.write(sse.DONE)
        await reply.end()

    # -- for its followers ------------------------------------------------------------------------

    @property
    def limits(self) -> Limits:
        """The engine's bounds."""
        return self._limits

    async def read(self, tenant: str, response_id: str, after: int) -> LoggedEvents:
        """Read a page; while the store is away it is tried again. Raises NotFound, StorageUnavailable."""
        found: list[LoggedEvents | None] = []

        async def attempt(_again: bool) -> None:
            page = await self._store.read_events(tenant, response_id, after=after, limit=_PAGE)
            found.append(page)

        await outlast(attempt, f"who follows {response_id}", self._limits.save_wait)
        page = found[-1]
        if page is None:
            raise _not_found(response_id)
        return page

    def check_running(self) -> None:
        """Raise Stopped once the worker stops."""
        if self._stopped:
            raise Stopped()

    def join(self, tenant: str, response_id: str, after: int) -> Watch:
        """Return the watch of a response, which has or will have all news behind that event."""
        watch = self._watches.get(response_id)
        if watch is None or watch.failure is not None:
            watch = self._watches[response_id] = Watch(
                response_id,
                lambda last: self._store.read_events(tenant, response_id, after=last, limit=_PAGE),
                outage=self._limits.save_wait,
                gone=_not_found(response_id),
            )
        watch.followers += 1
        watch.start(after)
        return watch

    def leave(self, response_id: str, watch: Watch) -> None:
        """Let go of a watch; the last one to do so ends it."""
        watch.followers -= 1
        if watch.followers == 0:
            watch.stop()
            if self._watches.get(response_id) is watch:
                del self._watches[response_id]


class _Follower:
    """One reader of one log; `after` is the number of the event that was sent last."""

    def __init__(
        self, following: Following, tenant: str, response_id: str, after: int, reply: Reply
    ) -> None:
        self.after = after
        self._following = following
        self._tenant = tenant
        self._id = response_id
        self._reply = reply

    async def run(self, page: LoggedEvents) -> None:
        """Send everything up to the terminal event."""
        while True:
            page = await self._catch_up(page)
            if page.status not in _UNFINISHED:
                break
            page = await self._follow_live()

    async def _catch_up(self, page: LoggedEvents) -> LoggedEvents:
        """Send pages of the store up to its newest event; return the last page."""
        await self._send(page.batches)
        while page.more:
            self._following.check_running()
            page = await self._read(self.after)
            await self._send(page.batches)
        return page

    async def _follow_live(self) -> LoggedEvents:
        """Send news as they come; return a page of the store when it is over or we fell behind."""
        watch = self._following.join(self._tenant, self._id, self.after)
        try:
            while watch.covers(self.after):
                if watch.failure is not None:
                    raise watch.failure
                news = watch.since(self.after)
                if news.batches:
                    await self._send(news.batches)
                elif not news.more:
                    return news
                else:
                    await self._beating(watch.change())
        finally:
            self._following.leave(self._id, watch)
        return await self._read(self.after)

    async def _send(self, batches: list[EventBatch]) -> None:
        for batch in batches:
            if batch.last > self.after:
                await self._reply.write(without_held(_above(batch, self.after)))
                self.after = batch.last

    async def _read(self, after: int) -> LoggedEvents:
        return await self._beating(self._following.read(self._tenant, self._id, after))

    async def _beating(self, waiting: Awaitable[T]) -> T:
        """Await something, with comments to the client meanwhile (rule R13)."""
        task = asyncio.ensure_future(waiting)
        try:
            while not task.done():
                done, _ = await asyncio.wait({task}, timeout=self._following.limits.heartbeat)
                if not done:
                    await self._reply.write(sse.KEEP_ALIVE)
            return task.result()
        finally:
            if not task.done():
                task.cancel()
                with suppress(asyncio.CancelledError):
                    await task


def _above(batch: EventBatch, after: int) -> bytes:
    """Return the frames of a batch that are numbered above `after`: one frame is one number."""
    place = 0
    for _ in range(batch.first, after + 1):
        place = batch.frames.index(b"\n\n", place) + 2
    return batch.frames[place:]


def _cut(error: EngineError, after: int) -> bytes:
    """Return the event that ends a stream whose response may well go on.

    No terminal event and no `[DONE]`: a `response.failed` would say of the response what is true of this
    connection only. The event repeats the number of the last one, so that a client that resumes behind
    the last number it saw misses nothing (rule P6).
    """
    writer = EventWriter()
    writer.sequence = max(after, 0)
    return writer.event(b"error", b"," + stream_error(error))


def _not_found(response_id: str) -> NotFound:
    return NotFound(f"Response with id '{response_id}' not found.")
