"""What the turns of one long conversation cost: time, CPU and bytes, from the first to the last.

Through Envoy and one worker, one turn after the other, to a model server that costs almost nothing.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from pathlib import Path

import aiohttp
import msgspec
import psycopg

from bench.plot import plot
from bench.processes import children, cpu_seconds
from bench.streams import backend
from extproc.settings import Settings
from extproc.up.stack import whole_stack
from storage.postgres.embedded import embedded_postgres
from storage.postgres.migrate import migrate

_EVENTS = 20
_STEPS = 10
_QUESTION = "What was that again? " * 20
_BYTES = """
SELECT (SELECT sum(pg_column_size(i.*)) FROM items i WHERE response_id = %(id)s)
     + (SELECT sum(pg_column_size(r.*)) FROM responses r WHERE id = %(id)s)
"""


class _Step(msgspec.Struct):
    """Some turns in a row."""

    last: int
    milliseconds: float
    cpu: float
    response_id: str


async def run(turns: int, drawing: Path | None) -> None:
    """Print the curve, a line for each tenth of the conversation; draw it into a file if there is one."""
    with tempfile.TemporaryDirectory(prefix="hf-bench-") as directory:
        socket = Path(directory) / "model.sock"
        async with embedded_postgres(Path(directory) / "postgres") as server:
            await migrate(server.conninfo)
            settings = Settings(data_dir=Path(directory)).having(
                listen={"port": 0},
                model={"url": f"unix:{socket}", "dialect": "responses"},
                postgres={"url": server.conninfo},
            )
            async with (
                backend(socket, _EVENTS, 0.0),
                whole_stack(settings, lambda _line: None) as url,
                aiohttp.ClientSession(url) as client,
            ):
                steps = await _converse(client, turns)
            await _print(server.conninfo, turns, steps)
    if drawing is not None:
        _draw(drawing, turns, steps)


async def _converse(client: aiohttp.ClientSession, turns: int) -> list[_Step]:
    async with client.post("/v1/conversations", json={}) as answer:
        name = (await answer.json())["id"]
    body = {"model": "m", "input": _QUESTION, "conversation": name}
    workers = children("extproc.worker")
    await _turn(client, body)
    steps: list[_Step] = []
    for step in range(_STEPS):
        times: list[float] = []
        used = cpu_seconds(workers)
        response_id = ""
        first, last = turns * step // _STEPS, turns * (step + 1) // _STEPS
        for _ in range(first, last):
            begun = time.perf_counter()
            response_id = await _turn(client, body)
            times.append(time.perf_counter() - begun)
        cpu = (cpu_seconds(workers) - used) / len(times)
        steps.append(_Step(last, 1e3 * statistics.median(times), 1e3 * cpu, response_id))
    return steps


async def _turn(client: aiohttp.ClientSession, body: dict[str, str]) -> str:
    async with client.post("/v1/responses", json=body) as answer:
        response = await answer.json()
    assert response["status"] == "completed", response
    return str(response["id"])


def _draw(file: Path, turns: int, steps: list[_Step]) -> None:
    curves = [
        ("time (median)", [step.milliseconds for step in steps]),
        ("CPU of the worker", [step.cpu for step in steps]),
    ]
    title = f"Milliseconds of a turn, in one conversation of {turns}"
    file.write_text(plot(title, "ms", [step.last for step in steps], curves), encoding="utf-8")


async def _print(conninfo: str, turns: int, steps: list[_Step]) -> None:
    async with await psycopg.AsyncConnection.connect(conninfo) as connection:
        sys.stdout.write(
            f"\none conversation of {turns} turns\n"
            f"{'up to turn':>10} {'ms a turn':>10} {'worker ms':>10} {'bytes stored':>13}\n"
        )
        for step in steps:
            cursor = await connection.execute(_BYTES.encode(), {"id": step.response_id})
            row = await cursor.fetchone()
            stored = 0 if row is None else int(row[0])
            sys.stdout.write(
                f"{step.last:10} {step.milliseconds:10.1f} {step.cpu:10.1f} {stored:13}"
                f"  {'#' * round(step.milliseconds)}\n"
            )
