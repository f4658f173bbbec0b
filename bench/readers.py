"""What clients cost that ask for a stream and do not read it: the memory of Envoy and of the worker."""

from __future__ import annotations

import asyncio
import json
import socket
import sys
import tempfile
from pathlib import Path

import aiohttp

from bench.processes import children, resident_mib
from bench.streams import backend
from extproc.settings import Settings
from extproc.up.stack import whole_stack

_EVENTS = 1000
# Bytes of one such stream as its client would get it, roughly: for the ratio.
_EVENT_BYTES = 190


async def run(readers: int) -> None:
    """Print the memory before, and with so many clients that have not read a byte of their stream."""
    with tempfile.TemporaryDirectory(prefix="hf-bench-") as directory:
        path = Path(directory) / "model.sock"
        settings = Settings(data_dir=Path(directory)).having(
            listen={"port": 0}, model={"url": f"unix:{path}", "dialect": "responses"}
        )
        async with (
            backend(path, _EVENTS, 0.0),
            whole_stack(settings, lambda _line: None) as url,
        ):
            port = int(url.rpartition(":")[2])
            envoy, workers = children("envoy"), children("extproc.worker")
            before = resident_mib(envoy), resident_mib(workers)
            sockets = await asyncio.gather(*(_ask(port) for _ in range(readers)))
            await _all_over(url, readers)
            after = resident_mib(envoy), resident_mib(workers)
            for opened in sockets:
                opened.close()
    sent = readers * _EVENTS * _EVENT_BYTES / 2**20
    sys.stdout.write(
        f"\n{readers} clients that do not read, {_EVENTS} deltas each ({sent:.0f} MiB in all)\n"
        f"Envoy {before[0]:.0f} -> {after[0]:.0f} MiB, worker {before[1]:.0f} -> {after[1]:.0f} MiB\n"
    )


async def _ask(port: int) -> socket.socket:
    """Send a request over a connection with a small window and read nothing."""
    body = json.dumps({"model": "m", "input": "hi", "stream": True}).encode()
    request = (
        "POST /v1/responses HTTP/1.1\r\nhost: bench\r\ncontent-type: application/json\r\n"
        f"content-length: {len(body)}\r\n\r\n"
    ).encode() + body
    opened = socket.socket()
    opened.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    opened.setblocking(False)
    loop = asyncio.get_running_loop()
    await loop.sock_connect(opened, ("127.0.0.1", port))
    await loop.sock_sendall(opened, request)
    return opened


async def _all_over(url: str, count: int) -> None:
    """Wait until that many responses are stored: none of them waits for its client."""
    async with asyncio.timeout(600), aiohttp.ClientSession(url) as client:
        over: set[str] = set()
        after = ""
        while len(over) < count:
            async with client.get(f"/v1/responses?limit=100&order=asc{after}") as answer:
                page = (await answer.json())["data"]
            over |= {entry["id"] for entry in page if entry["status"] == "completed"}
            finished = len(page) == 100 and all(entry["id"] in over for entry in page)
            after = f"&after={page[-1]['id']}" if finished else after
            await asyncio.sleep(0.5)
