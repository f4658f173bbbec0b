"""What a streamed response costs through Holdfast, beside Envoy alone: one run, ratios.

Three ways for the same prepared stream: (a) Envoy alone, (b) Envoy + Holdfast not stored, (c) stored in
Postgres. One worker, everything on this machine. CPU is per client-visible event; `ceiling` is what one
core of the worker could do at that cost.
"""

from __future__ import annotations

import asyncio
import json
import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from bench.processes import children, cpu_seconds, resident_mib
from extproc.settings import Settings
from extproc.up.stack import whole_stack

_WAYS = (
    ("Envoy alone", "/v1/chat/completions", False),
    ("Holdfast, not stored", "/v1/responses", False),
    ("Holdfast, stored", "/v1/responses", True),
)


@asynccontextmanager
async def backend(socket: Path, events: int, rate: float, calls: int = 0) -> AsyncIterator[None]:
    """Run the prepared model server on a socket; `calls` of a tool come before the text."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "bench.backend", "--socket", str(socket),
        "--events", str(events), "--rate", str(rate), "--calls", str(calls),
        stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    assert process.stdout is not None
    await asyncio.wait_for(process.stdout.readline(), 10)
    try:
        yield
    finally:
        process.terminate()
        await process.wait()


async def load(port: int, path: str, streams: int, requests: int, store: bool) -> dict[str, float]:
    """Run the client and return its figures."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "bench.load", "--port", str(port), "--path", path,
        "--streams", str(streams), "--requests", str(requests), *(["--store"] if store else []),
        stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    output, _ = await process.communicate()
    figures: dict[str, float] = json.loads(output)
    return figures


async def _measure(port: int, way: tuple[str, str, bool], streams: int, requests: int) -> None:
    name, path, store = way
    envoy, workers = children("envoy"), children("extproc.worker")
    await load(port, path, streams, min(requests, 2 * streams), store)
    before = cpu_seconds(envoy), cpu_seconds(workers)
    figures = await load(port, path, streams, requests, store)
    used = cpu_seconds(envoy) - before[0], cpu_seconds(workers) - before[1]
    events = figures["events"]
    per_event = [1e6 * seconds / events for seconds in used]
    ceiling = f"{1e6 / per_event[1]:8.0f}" if per_event[1] > 0.5 else "       -"
    sys.stdout.write(
        f"{name:22} {streams:7} {events / figures['seconds']:9.0f} "
        f"{per_event[0]:9.1f} {per_event[1]:9.1f} {ceiling} "
        f"{1e3 * figures['ttft_p50']:9.2f} {1e3 * figures['ttft_p99']:9.2f} "
        f"{resident_mib(envoy):7.0f} {resident_mib(workers):7.0f} {figures['failed']:6.0f}\n"
    )
    sys.stdout.flush()


async def _section(
    streams: list[int], events: int, rate: float, seconds: float, *, inline: bool
) -> None:
    with tempfile.TemporaryDirectory(prefix="hf-bench-") as directory:
        socket = Path(directory) / "model.sock"
        settings = Settings(data_dir=Path(directory)).having(
            listen={"port": 0},
            model={"url": f"unix:{socket}", "dialect": "responses"},
            envoy={"inline": inline},
        )
        async with (
            backend(socket, events, rate),
            whole_stack(settings, lambda _line: None) as url,
        ):
            port = int(url.rpartition(":")[2])
            pace = f"{rate:.0f} events/s each" if rate else "as fast as it goes"
            sys.stdout.write(
                f"\n{events} deltas a stream, {pace}\n"
                f"{'':22} {'streams':>7} {'events/s':>9} {'Envoy us':>9} {'worker us':>9} "
                f"{'ceiling':>8} {'TTFT p50':>9} {'TTFT p99':>9} {'Envoy M':>7} {'work. M':>7} "
                f"{'failed':>6}\n"
            )
            for count in streams:
                requests = _requests(count, events, rate, seconds)
                for way in _WAYS:
                    await _measure(port, way, count, requests)


def _requests(streams: int, events: int, rate: float, seconds: float) -> int:
    """Return how many requests take about so long; unpaced, 10,000 events/s are assumed."""
    pace = streams * rate if rate else 10_000
    return max(streams, int(seconds * pace / events))


async def run(streams: list[int], seconds: float, *, inline: bool) -> None:
    """Print the three tables; `seconds` is how long one measurement takes, roughly."""
    # Time to the first token, with streams so short that nothing else is measured; then a model's pace,
    # then all that goes.
    await _section([1], events=5, rate=0.0, seconds=seconds / 8, inline=inline)
    await _section(streams, events=200, rate=50.0, seconds=seconds, inline=inline)
    await _section(streams, events=200, rate=0.0, seconds=seconds, inline=inline)
