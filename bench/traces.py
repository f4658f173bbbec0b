"""What traces cost on the token path: the same streams with none, with one in ten, and with all.

Three stacks with one worker each on one Postgres, measured in turns so that the machine's moods meet all of
them alike. The ratio is that of the worker's CPU for each event, medians over the rounds, exports included.
"""

from __future__ import annotations

import asyncio
import statistics
import sys
import tempfile
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

from bench.processes import children, cpu_seconds
from bench.streams import backend, load
from extproc.settings import Settings
from extproc.up.stack import whole_stack
from storage.postgres.embedded import embedded_postgres

_WAYS: tuple[tuple[str, float | None], ...] = (("off", None), ("10 %", 0.1), ("100 %", 1.0))
_STREAMS = 16
# What a batch of spans waits for at the most, and is still of the measurement.
_EXPORT_SECONDS = 2.5


async def run(seconds: float, rounds: int) -> None:
    """Print the two tables; `seconds` is how long one measurement takes, roughly."""
    await _section(200, seconds, rounds)
    await _section(20, seconds, rounds)


async def _section(events: int, seconds: float, rounds: int) -> None:
    requests = max(_STREAMS, int(seconds * 8_000 / events))
    async with AsyncExitStack() as parts:
        directory = Path(parts.enter_context(tempfile.TemporaryDirectory(prefix="hf-bench-")))
        model = directory / "model.sock"
        await parts.enter_async_context(backend(model, events, 0.0))
        database = await parts.enter_async_context(embedded_postgres(directory / "postgres"))
        collector = await parts.enter_async_context(_collector())
        ports = {}
        for number, (name, ratio) in enumerate(_WAYS):
            traces = {} if ratio is None else {"endpoint": collector, "sample_ratio": ratio}
            settings = _settings(directory / str(number), model, database.conninfo, traces)
            url = await parts.enter_async_context(whole_stack(settings, lambda _line: None))
            ports[name] = int(url.rpartition(":")[2])
        found: dict[str, list[float]] = {name: [] for name in ports}
        for port in ports.values():
            await load(port, "/v1/responses", _STREAMS, _STREAMS * 4, store=True)
        for _ in range(rounds):
            for name, port in ports.items():
                found[name].append(await _measured(port, requests))
    _show(events, requests, found)


async def _measured(port: int, requests: int) -> float:
    """Return microseconds of all workers' CPU for each event."""
    workers = children("extproc.worker")
    before = cpu_seconds(workers)
    figures = await load(port, "/v1/responses", _STREAMS, requests, store=True)
    await asyncio.sleep(_EXPORT_SECONDS)
    assert not figures["failed"]
    return 1e6 * (cpu_seconds(workers) - before) / figures["events"]


def _show(events: int, requests: int, found: Mapping[str, list[float]]) -> None:
    base = statistics.median(found["off"])
    sys.stdout.write(
        f"\ntraces, {events} deltas a stream, {requests} streams a round, stored\n"
        f"{'traced':8} {'worker us/event':>16} {'ratio':>7}   rounds\n"
    )
    for name, costs in found.items():
        cost = statistics.median(costs)
        each = " ".join(f"{value:.1f}" for value in costs)
        sys.stdout.write(f"{name:8} {cost:16.1f} {cost / base:7.3f}   {each}\n")
    sys.stdout.flush()


def _settings(
    directory: Path, model: Path, database: str, traces: Mapping[str, object]
) -> Settings:
    return Settings(data_dir=directory).having(
        listen={"port": 0},
        sidecar={"name": directory.name},
        model={"url": f"unix:{model}", "dialect": "responses"},
        postgres={"url": database},
        envoy={"concurrency": 1},
        traces=traces,
    )


@asynccontextmanager
async def _collector() -> AsyncIterator[str]:
    """Run a collector beside, whose work is nobody's here; gives its URL."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "bench.collector", stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None
    port = (await asyncio.wait_for(process.stdout.readline(), 10)).decode().strip()
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        await process.wait()
