"""A run as the store sees it: accepted, logged, and then finished, taken back or handed over."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from engine.errors import EngineError, LeaseLost
from engine.eventlog import EventLog
from engine.outage import outlast
from engine.ports import FinishedResponse, Lease
from engine.response.effects import Save
from engine.run import Means, Run

_log = logging.getLogger(__name__)

# What its client saw as an answer, whole or not, is said; the rest leaves a conversation as it was.
_JOINING = ("completed", "incomplete")


class Custody:
    """Holds the lease of one run and does all of its writing.

    `failed` is told when the log cannot go on. A run that is not stored has no lease and no log.
    """

    def __init__(self, run: Run, means: Means, failed: Callable[[EngineError], None]) -> None:
        self.lease: Lease | None = None
        self.lost = False
        """True once the lease is known to be lost: nothing is written any more (rule P4)."""
        self.log = _event_log(run, means, failed) if run.streamed and run.stored else None
        self._run = run
        self._store = means.store
        self._notify = means.notify
        self._save_wait = means.limits.save_wait
        self._accepting: asyncio.Future[None] | None = None

    def accept(self) -> None:
        """Begin to write the accepted row, if it is not there; without effect the second time."""
        if self._accepting is None:
            self._accepting = asyncio.ensure_future(self._accept())

    async def accepted(self) -> None:
        """Wait for the accepted row; raises what kept it from being written."""
        if self._accepting is not None:
            await asyncio.shield(self._accepting)

    async def finish(self, save: Save) -> None:
        """Write the terminal state and the log's tail.

        While the store is away it is tried again, up to a limit (rule P2). Raises StorageUnavailable,
        LeaseLost, or what kept the response from being accepted.
        """
        clock = asyncio.get_running_loop().time
        deadline = clock() + self._save_wait
        lease = await self._owned()
        if self.lost:
            raise lease_lost()
        events = None
        if self.log is not None:
            events = await self.log.end(save.ending, self._save_wait)
        finished = FinishedResponse(
            lease,
            save.status,
            save.head,
            save.output,
            events,
            asked=save.asked,
            joins=save.status in _JOINING,
        )
        await outlast(
            lambda again: self._store.finish(finished, again=again),
            lease.response_id,
            deadline - clock(),
        )
        self._notify(lease.response_id)

    async def abandon(self) -> None:
        """Take the accepted row back: its client was refused and never learnt its id."""
        try:
            await self.accepted()
        except Exception:
            # Nothing was accepted, and that is what the client is told.
            return
        try:
            if self.lease is not None:
                await self._store.abandon(self.lease)
            elif self._run.claim is not None:
                await self._store.free_answers(self._run.claim)
        except EngineError as error:
            _log.warning("%s could not be taken back: %s", self._run.id, error)

    async def release(self) -> None:
        """Put the run back into the queue, with its log as far as it got."""
        try:
            lease = await self._owned()
            events = None if self.log is None else await self.log.end(None, self._save_wait)
            if events is not None:
                await self._store.append(lease, events)
            await self._store.release(lease)
        except EngineError as error:
            # Its lease runs out, and it is taken over then.
            _log.warning("%s could not be handed over: %s", self._run.id, error)

    def close(self) -> None:
        """Write nothing more."""
        if self.log is not None:
            self.log.close()

    async def _accept(self) -> None:
        run = self._run
        if run.claim is not None:
            await self._store.take_answers(run.claim)
        if run.new is None:
            self.lease = run.lease
        else:
            with run.account.step("accept"):
                self.lease = await self._store.accept(run.new)
        if self.log is not None and self.lease is not None:
            self.log.open(self.lease)

    async def _owned(self) -> Lease:
        self.accept()
        await self.accepted()
        assert self.lease is not None
        return self.lease


def lease_lost() -> LeaseLost:
    """Return the error of a run that is no longer ours."""
    return LeaseLost("Another worker has taken over this response.")


def _event_log(run: Run, means: Means, failed: Callable[[EngineError], None]) -> EventLog:
    made = run.unlogged
    first = run.machine.sequence if made is None else made.first
    log = EventLog(
        means.store,
        means.limits,
        first=first,
        notify=means.notify,
        failed=failed,
        meters=means.meters,
    )
    if made is not None:
        log.add(made.frames, made.last)
    return log
