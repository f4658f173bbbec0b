"""The event log of one running response: written in batches, beside the stream and never before it.

Events are released to the client first; what a token costs here is an append to a list. One batch is in
flight at a time, and waits in memory while the store is away (rules P2, P6). The rest goes with the
terminal state, in its transaction.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from engine.errors import EngineError, StorageUnavailable
from engine.limits import Limits
from engine.outage import outlast
from engine.ports import EventBatch, Lease, RunStore
from engine.ports.meters import NO_METERS, Meters

_log = logging.getLogger(__name__)

Notify = Callable[[str], None]
"""Told the id of a response whose log or state has just changed in the store."""


class EventLog:
    """`first` is the number of the first event to come.

    `failed` is told once of what ends the log before its time: a lost lease, or a bug.
    """

    def __init__(
        self,
        store: RunStore,
        limits: Limits,
        *,
        first: int,
        notify: Notify,
        failed: Callable[[EngineError], None],
        meters: Meters = NO_METERS,
    ) -> None:
        self._store = store
        self._limits = limits
        self._notify = notify
        self._failed = failed
        self._meters = meters
        self._clock = asyncio.get_running_loop().time
        self._since = 0.0
        self._lease: Lease | None = None
        self._frames: list[bytes] = []
        self._size = 0
        self._first = first
        self._last = first - 1
        self._timer: asyncio.TimerHandle | None = None
        self._writing: asyncio.Task[None] | None = None
        self._error: EngineError | None = None
        self._ending = False
        self._tried = asyncio.Event()
        self._away_since: float | None = None

    def open(self, lease: Lease) -> None:
        """Begin to write: the response is accepted."""
        self._lease = lease
        self._schedule()

    def add(self, frames: bytes, last: int) -> None:
        """Take whole events, the last of which has this number; nothing is written here."""
        if not self._frames:
            self._since = self._clock()
        self._frames.append(frames)
        self._size += len(frames)
        self._last = last
        if self._timer is None or self._size >= self._limits.log_bytes:
            self._schedule()

    @property
    def waiting(self) -> int:
        """Bytes that are not being written yet."""
        return self._size

    @property
    def crowded(self) -> bool:
        """True while so much waits for the store that nothing should be added (rule X5)."""
        return self._size > self._limits.response_bytes

    async def room(self) -> None:
        """Wait until the log is not crowded; raises StorageUnavailable when the store stays away."""
        clock = asyncio.get_running_loop().time
        while self.crowded and self._error is None:
            since = self._away_since
            if since is not None and clock() - since >= self._limits.save_wait:
                raise _away()
            self._tried.clear()
            await self._tried.wait()

    async def written(self) -> None:
        """Wait until all that was added is in the store; raises StorageUnavailable when it stays away."""
        clock = asyncio.get_running_loop().time
        while self._error is None and (self._frames or self._writing is not None):
            if self._writing is None:
                self._write()
            since = self._away_since
            if since is not None and clock() - since >= self._limits.save_wait:
                raise _away()
            self._tried.clear()
            await self._tried.wait()

    async def end(self, ending: EventBatch | None, seconds: float) -> EventBatch | None:
        """Return what is not written yet with `ending` behind it, once nothing is in flight any more.

        Raises StorageUnavailable after `seconds`, or what ended the log. Nothing is written afterwards.
        """
        self._ending = True
        self._stop_timer()
        if self._writing is not None:
            done, _ = await asyncio.wait({self._writing}, timeout=seconds)
            if not done:
                raise _away()
        if self._error is not None:
            raise self._error
        if ending is not None:
            self._frames.append(ending.frames)
            self._last = ending.last
        return self._take() if self._frames else None

    def close(self) -> None:
        """Write nothing more."""
        self._ending = True
        self._stop_timer()
        if self._writing is not None:
            self._writing.cancel()

    def _schedule(self) -> None:
        """Write now or after the interval, unless something is in flight: its end looks again."""
        if self._lease is None or self._writing is not None or self._ending or not self._frames:
            return
        if self._size >= self._limits.log_bytes:
            self._write()
        elif self._timer is None:
            loop = asyncio.get_running_loop()
            self._timer = loop.call_later(self._limits.log_interval, self._write)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _write(self) -> None:
        assert self._lease is not None
        self._stop_timer()
        since = self._since
        writing = self._append(self._lease, self._take(), since)
        self._writing = asyncio.get_running_loop().create_task(writing)

    def _take(self) -> EventBatch:
        batch = EventBatch(self._first, self._last, b"".join(self._frames))
        self._first = self._last + 1
        self._frames.clear()
        self._size = 0
        return batch

    async def _append(self, lease: Lease, batch: EventBatch, since: float) -> None:
        """Write a batch, however long it takes: what follows it must not be there without it.

        `since` is when its first event was made.
        """
        try:
            await outlast(lambda _again: self._try(lease, batch), lease.response_id)
        except EngineError as error:
            self._fail(error)
        except Exception:
            _log.exception("the events of %s could not be written", lease.response_id)
            self._fail(EngineError("The gateway failed; see its log."))
        else:
            self._meters.logged(self._clock() - since, len(batch.frames))
            self._notify(lease.response_id)
            self._writing = None
            self._schedule()
        finally:
            self._tried.set()

    async def _try(self, lease: Lease, batch: EventBatch) -> None:
        try:
            await self._store.append(lease, batch)
        except StorageUnavailable:
            if self._away_since is None:
                self._away_since = asyncio.get_running_loop().time()
            self._tried.set()
            raise
        self._away_since = None

    def _fail(self, error: EngineError) -> None:
        self._error = error
        self._ending = True
        self._stop_timer()
        self._failed(error)


def _away() -> StorageUnavailable:
    return StorageUnavailable("The store cannot be reached.")
