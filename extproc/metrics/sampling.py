"""What is only true now: looked at once a second, and written into the gauges of this worker."""

from __future__ import annotations

import asyncio

from engine.background import Background
from engine.live import Live
from extproc.metrics.counted import Door
from extproc.metrics.meters import BookMeters
from storage.postgres.pool import Pool

SECONDS = 1.0


class Sampling:
    """Looks at the parts of a worker while it lives."""

    def __init__(
        self,
        meters: BookMeters,
        *,
        live: Live,
        background: Background,
        pool: Pool,
        doors: dict[str, Door],
    ) -> None:
        """`doors` are the exchanges, by transport."""
        self.draining = False
        self._meters = meters
        self._live = live
        self._background = background
        self._pool = pool
        self._doors = doors
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to look."""
        self._task = asyncio.get_running_loop().create_task(self._run())

    async def stop(self) -> None:
        """Look no more."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _run(self) -> None:
        clock = asyncio.get_running_loop().time
        while True:
            self.look()
            due = clock() + SECONDS
            await asyncio.sleep(SECONDS)
            self._meters.loop_delay(max(0.0, clock() - due))

    def look(self) -> None:
        """Write down what there is now."""
        self._look_at_runs()
        self._look_at_pool()
        gauge = self._meters.gauge
        gauge("holdfast_draining", self.draining)
        for transport, door in self._doors.items():
            gauge("holdfast_exchanges_open", door.open, transport)

    def _look_at_runs(self) -> None:
        gauge, census = self._meters.gauge, self._live.census()
        for kind in ("foreground", "detached", "background", "unstored"):
            gauge("holdfast_runs", getattr(census, kind), kind)
        gauge("holdfast_leases", census.leases)
        gauge("holdfast_pipe_bytes", census.pipe_bytes)
        gauge("holdfast_event_log_waiting_bytes", census.log_bytes)
        gauge("holdfast_background_room", max(0, self._background.room))

    def _look_at_pool(self) -> None:
        gauge, census = self._meters.gauge, self._pool.census()
        gauge("holdfast_pool_connections", census.used, "used")
        gauge("holdfast_pool_connections", census.idle, "idle")
        gauge("holdfast_pool_limit", census.most)
        gauge("holdfast_pool_waiting", census.waiting)
