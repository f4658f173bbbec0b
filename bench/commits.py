"""What group commit gains and what row-level security costs, on a Postgres of our own with fsync.

`python -m bench.commits`: the two ways of each comparison alternate in short rounds, so that what else
the machine does hits both; the medians of the rounds are compared.
"""

from __future__ import annotations

import argparse
import asyncio
import secrets
import statistics
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path

import psycopg

from engine.ports import FinishedResponse, NewResponse, StoredItem
from storage.postgres import queries
from storage.postgres.embedded import embedded_postgres
from storage.postgres.migrate import migrate
from storage.postgres.pool import Connection, open_pool
from storage.postgres.scope import Statement, key, rows_of
from storage.postgres.store import PostgresStore
from storage.postgres.writer import Write, Writer, Written

_ROUNDS = 7
_ITEM = StoredItem("msg_1", "message", b'{"x":"' + b"x" * 600 + b'"}', b"y" * 400)
_GET = queries.load("reading.sql")["get"]


class _OneByOne(Writer):
    """Every write commits by itself."""

    async def write(self, write: Write) -> Written:
        return await self.write_alone(write)


async def _turn(store: PostgresStore) -> None:
    """Accept and finish one response: two commits."""
    response_id = f"resp_{secrets.token_hex(16)}"
    lease = await store.accept(
        NewResponse(
            tenant="bench", id=response_id, model="m", created_at=0, head=b"h" * 1500, input=[_ITEM],
            worker="bench/0#1", lease_seconds=60.0,
        )
    )  # fmt: skip
    await store.finish(
        FinishedResponse(lease=lease, status="completed", head=b"h" * 1500, output=[_ITEM])
    )


async def _rate(work: Callable[[], Awaitable[object]], callers: int, seconds: float) -> float:
    """Return how often a second `callers` do the work, one after the other each."""
    count = 0
    end = time.perf_counter() + seconds

    async def call() -> None:
        nonlocal count
        while time.perf_counter() < end:
            await work()
            count += 1

    begun = time.perf_counter()
    await asyncio.gather(*(call() for _ in range(callers)))
    return count / (time.perf_counter() - begun)


async def _compare(
    ways: Mapping[str, Callable[[], Awaitable[object]]], callers: int, seconds: float
) -> dict[str, float]:
    rates: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(_ROUNDS):
        for name, work in ways.items():
            rates[name].append(await _rate(work, callers, seconds / _ROUNDS))
    return {name: statistics.median(found) for name, found in rates.items()}


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


async def run(seconds: float) -> None:
    """Print commits a second grouped and one by one, and what a `get` costs with the second wall."""
    with tempfile.TemporaryDirectory(prefix="hf-bench-") as directory:
        async with embedded_postgres(Path(directory) / "postgres") as server:
            await migrate(server.conninfo)
            await _commits(server.conninfo, seconds)
            await _wall(server.conninfo, seconds)


async def _commits(conninfo: str, seconds: float) -> None:
    _say(f"\n{'callers':>7} {'one by one':>12} {'grouped':>12} {'ratio':>6}   (commits a second)")
    async with open_pool(conninfo, min_size=10) as pool:
        alone = PostgresStore(pool, _OneByOne(pool))
        grouped = PostgresStore(pool)
        for callers in (1, 8, 64):
            ways = {"alone": lambda: _turn(alone), "grouped": lambda: _turn(grouped)}
            rates = await _compare(ways, callers, seconds)
            _say(
                f"{callers:7} {2 * rates['alone']:12.0f} {2 * rates['grouped']:12.0f} "
                f"{rates['grouped'] / rates['alone']:6.2f}"
            )


async def _wall(conninfo: str, seconds: float) -> None:
    """Compare `get` as it is with the bare statement of a superuser, who no policy holds for."""
    async with (
        open_pool(conninfo, min_size=1) as pool,
        await psycopg.AsyncConnection.connect(
            conninfo, autocommit=True, prepare_threshold=0
        ) as connection,
    ):
        store = PostgresStore(pool)
        await _turn(store)
        page = await store.list_responses("bench", limit=1, after=None, order="desc", model=None)
        values = key("bench", page.responses[0].id)

        async def bare() -> None:
            cursor = connection.cursor(binary=True)
            await cursor.execute(_GET, values)
            await cursor.fetchall()

        async def scoped(connection: Connection, _attempt: int) -> None:
            await rows_of(connection, Statement(_GET, values))

        async def pooled_bare(connection: Connection, _attempt: int) -> None:
            cursor = connection.cursor(binary=True)
            await cursor.execute(_GET, values)
            await cursor.fetchall()

        ways = {
            "the statement alone, as superuser": bare,
            "through the pool, no tenant set": lambda: pool.run(pooled_bare),
            "through the pool, tenant set (as it is)": lambda: pool.run(scoped),
        }
        rates = await _compare(ways, 1, seconds)
    _say("\nget, one caller")
    for name, rate in rates.items():
        _say(f"{name:42} {1e6 / rate:8.0f} us")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m bench.commits", description=__doc__)
    parser.add_argument("--seconds", type=float, default=8.0, help="of one measurement, roughly")
    asyncio.run(run(parser.parse_args().seconds))
