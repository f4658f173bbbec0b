"""What counting costs: the same streams through two stacks, one with metrics and one without. Ratios.

Both run side by side and are measured by turns, so that whatever else the machine does meets both. CPU is the
workers', per client-visible event, over all rounds: the clock of the kernel is too coarse for one.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from bench.processes import children, cpu_seconds
from bench.streams import backend, load
from extproc.settings import Settings
from extproc.up.stack import whole_stack

_EVENTS = 200
_ROUNDS = 12
_PATH = "/v1/responses"


class _Way:
    """One of the two stacks: its port, its worker, and what was measured."""

    def __init__(self, port: int, worker: list[int]) -> None:
        self.port = port
        self._worker = worker
        self.used = 0.0
        self.events = 0.0
        self.seconds = 0.0

    async def measure(self, streams: int, requests: int, *, store: bool) -> None:
        """Add a round."""
        before = cpu_seconds(self._worker)
        figures = await load(self.port, _PATH, streams, requests, store)
        assert figures["failed"] == 0
        self.used += cpu_seconds(self._worker) - before
        self.events += figures["events"]
        self.seconds += figures["seconds"]


async def run(streams: int, seconds: float) -> None:
    """Print the table."""
    sys.stdout.write(
        f"\nmetrics on / off, {_EVENTS} deltas a stream, {streams} streams, {_ROUNDS} rounds\n"
        f"{'':12} {'us/event on':>12} {'off':>8} {'ratio':>7} {'events/s ratio':>15}\n"
    )
    requests = max(streams, int(seconds / 2 * 10_000 / _EVENTS))
    async with _stack(enabled=True) as on, _stack(enabled=False) as off:
        for store in (False, True):
            ways = [_Way(*on), _Way(*off)]
            for way in ways:
                await load(way.port, _PATH, streams, streams, store)
            for number in range(_ROUNDS):
                for way in ways if number % 2 else reversed(ways):
                    await way.measure(streams, requests, store=store)
            _print("stored" if store else "not stored", *ways)


def _print(name: str, on: _Way, off: _Way) -> None:
    cost = [1e6 * way.used / way.events for way in (on, off)]
    pace = [way.events / way.seconds for way in (on, off)]
    sys.stdout.write(
        f"{name:12} {cost[0]:12.1f} {cost[1]:8.1f} {cost[0] / cost[1]:7.3f}"
        f" {pace[0] / pace[1]:15.3f}\n"
    )
    sys.stdout.flush()


@asynccontextmanager
async def _stack(*, enabled: bool) -> AsyncIterator[tuple[int, list[int]]]:
    """Give the port and the worker of a stack."""
    with tempfile.TemporaryDirectory(prefix="hf-bench-") as directory:
        socket = Path(directory) / "model.sock"
        settings = Settings(data_dir=Path(directory)).having(
            listen={"port": 0},
            model={"url": f"unix:{socket}", "dialect": "responses"},
            metrics={"enabled": enabled, "listen": f"unix:{directory}/metrics.sock"},
        )
        there = set(children("extproc.worker"))
        async with (
            backend(socket, _EVENTS, 0.0),
            whole_stack(settings, lambda _line: None) as url,
        ):
            worker = [pid for pid in children("extproc.worker") if pid not in there]
            yield int(url.rpartition(":")[2]), worker
