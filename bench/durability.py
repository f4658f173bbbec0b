"""What it costs that nothing is lost: the event log, the lease, and how soon a stream is resumed.

The same stored streams at a model's pace with the log in its usual batches, with the log written only
together with the terminal state, and with leases renewed every other moment or never.
"""

from __future__ import annotations

import asyncio
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

import aiohttp

from bench.processes import children, cpu_seconds
from bench.streams import backend, load
from extproc.settings import Settings
from extproc.up.stack import whole_stack

_EVENTS, _RATE = 200, 50.0
_RESUMES = 200

# What each way has of its own; the first is the yardstick.
_WAYS: Mapping[str, Mapping[str, Mapping[str, object]]] = {
    "as it is": {},
    "log with the end only": {"postgres": {"log_seconds": 60, "log_bytes": 4 << 20}},
    "leases of an hour": {"postgres": {"lease_seconds": 3600}},
    "leases of one second": {"postgres": {"lease_seconds": 1}},
}


async def run(streams: int, seconds: float) -> None:
    """Print the table of costs and the times to resume."""
    requests = max(streams, int(seconds * _RATE * streams / _EVENTS))
    sys.stdout.write(
        f"\n{streams} stored streams of {_EVENTS} deltas, {_RATE:.0f} events/s each\n"
        f"{'':24} {'events/s':>9} {'worker us':>10} {'Postgres us':>12} {'ratio':>6}\n"
    )
    usual = 0.0
    for name, sections in _WAYS.items():
        events_a_second, worker, database = await _cost(sections, streams, requests)
        usual = usual or worker
        sys.stdout.write(
            f"{name:24} {events_a_second:9.0f} {worker:10.1f} {database:12.1f} "
            f"{worker / usual:6.2f}\n"
        )
        sys.stdout.flush()
    await _resuming()


async def _cost(
    sections: Mapping[str, Mapping[str, object]], streams: int, requests: int
) -> tuple[float, float, float]:
    """Return events/s, and CPU microseconds per event of the worker and of Postgres."""
    with tempfile.TemporaryDirectory(prefix="hf-bench-") as directory:
        socket = Path(directory) / "model.sock"
        settings = Settings(data_dir=Path(directory)).having(
            listen={"port": 0}, model={"url": f"unix:{socket}", "dialect": "responses"}
        )
        settings = settings.having(**sections) if sections else settings
        async with (
            backend(socket, _EVENTS, _RATE),
            whole_stack(settings, lambda _line: None) as url,
        ):
            port = int(url.rpartition(":")[2])
            await load(port, "/v1/responses", streams, streams, store=True)
            workers, database = children("extproc.worker"), children("postgres", deep=True)
            before = cpu_seconds(workers), cpu_seconds(database)
            figures = await load(port, "/v1/responses", streams, requests, store=True)
            used = cpu_seconds(workers) - before[0], cpu_seconds(database) - before[1]
            events = figures["events"]
            return events / figures["seconds"], 1e6 * used[0] / events, 1e6 * used[1] / events


async def _resuming() -> None:
    """Print the time from a resuming request to its first event, of a stream over and of one running."""
    with tempfile.TemporaryDirectory(prefix="hf-bench-") as directory:
        socket = Path(directory) / "model.sock"
        settings = Settings(data_dir=Path(directory)).having(
            listen={"port": 0}, model={"url": f"unix:{socket}", "dialect": "responses"}
        )
        async with (
            backend(socket, 2000, _RATE),
            whole_stack(settings, lambda _line: None) as url,
            aiohttp.ClientSession(url) as client,
        ):
            running = asyncio.create_task(_running(client))
            async with asyncio.timeout(30):
                response_id = await _begun(client)
            live = [await _first_event(client, response_id, number) for number in range(_RESUMES)]
            running.cancel()
            await client.post(f"/v1/responses/{response_id}/cancel")
            over = [await _first_event(client, response_id, number) for number in range(_RESUMES)]
    for name, times in (("running", live), ("over", over)):
        times.sort()
        sys.stdout.write(
            f"resume, stream {name:8} first event after ms: p50 {1e3 * statistics.median(times):.2f} "
            f"p99 {1e3 * times[int(len(times) * 0.99)]:.2f}\n"
        )


async def _running(client: aiohttp.ClientSession) -> None:
    body = {"model": "m", "input": "hi", "stream": True}
    async with client.post("/v1/responses", json=body) as answer:
        async for _ in answer.content.iter_any():
            pass


async def _begun(client: aiohttp.ClientSession) -> str:
    """Return the id of the response that runs once its log has as many events as are resumed at."""
    while True:
        async with client.get("/v1/responses?limit=1") as answer:
            found = (await answer.json())["data"]
        if found:
            response_id = str(found[0]["id"])
            path = f"/v1/responses/{response_id}?stream=true&starting_after={_RESUMES}"
            async with client.get(path) as answer:
                await answer.content.readany()
            return response_id
        await asyncio.sleep(0.05)


async def _first_event(client: aiohttp.ClientSession, response_id: str, after: int) -> float:
    """Return the seconds from the request to the first event, which must be the one asked for."""
    begun = time.perf_counter()
    path = f"/v1/responses/{response_id}?stream=true&starting_after={after}"
    async with client.get(path) as answer:
        line = b""
        while not line.startswith(b"data: {"):
            line = await answer.content.readline()
        taken = time.perf_counter() - begun
        assert json.loads(line[6:])["sequence_number"] == after + 1
        return taken
