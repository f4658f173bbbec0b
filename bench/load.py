"""A client that costs little: raw HTTP/1.1 streams, counted and timed.

`python -m bench.load --port P --path PATH --streams S --requests N [--store]` prints one JSON line.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import sys
import time

import uvloop

_DELTA = b"event: response.output_text.delta"
_COMPLETED = b"event: response.completed"


class Tally:
    """What was seen over all requests."""

    def __init__(self) -> None:
        self.first: list[float] = []
        """Seconds from sending to the first text delta, one a request."""
        self.events = 0
        self.failed = 0


async def _request(tally: Tally, port: int, request: bytes) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1 << 20)
    begun = time.perf_counter()
    writer.write(request)
    first = True
    completed = False
    tail = b""
    while data := await reader.read(1 << 18):
        if first and _DELTA in data:
            tally.first.append(time.perf_counter() - begun)
            first = False
        tally.events += data.count(b"\nevent: ")
        completed = completed or _COMPLETED in tail + data
        tail = data[-64:]
        if tail.endswith(b"0\r\n\r\n"):
            break
    tally.failed += not completed
    writer.close()


async def run(port: int, path: str, streams: int, requests: int, store: bool) -> Tally:
    """Make `requests` requests, `streams` at a time."""
    body = json.dumps({"model": "m", "input": "hi", "stream": True, "store": store}).encode()
    request = (
        f"POST {path} HTTP/1.1\r\nhost: bench\r\ncontent-type: application/json\r\n"
        f"content-length: {len(body)}\r\n\r\n"
    ).encode() + body
    tally = Tally()
    left = requests

    async def one_after_the_other() -> None:
        nonlocal left
        while left > 0:
            left -= 1
            await _request(tally, port, request)

    async with asyncio.TaskGroup() as group:
        for _ in range(streams):
            group.create_task(one_after_the_other())
    return tally


def _report(tally: Tally, seconds: float) -> dict[str, float]:
    first = sorted(tally.first)
    return {
        "seconds": seconds,
        "events": tally.events,
        "failed": tally.failed,
        "ttft_p50": statistics.median(first),
        "ttft_p99": first[min(len(first) - 1, int(len(first) * 0.99))],
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--path", required=True)
    parser.add_argument("--streams", type=int, required=True)
    parser.add_argument("--requests", type=int, required=True)
    parser.add_argument("--store", action="store_true")
    given = parser.parse_args()
    begun = time.perf_counter()
    seen = uvloop.run(run(given.port, given.path, given.streams, given.requests, given.store))
    sys.stdout.write(json.dumps(_report(seen, time.perf_counter() - begun)) + "\n")
