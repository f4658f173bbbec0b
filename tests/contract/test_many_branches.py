"""What reading a history takes in a tree of many branches: its own items, and a step for each branch."""

from __future__ import annotations

import asyncio
from typing import Any

import psycopg
from psycopg.types.numeric import Int8

from storage.postgres import queries
from storage.postgres.pool import Pool, open_pool
from storage.postgres.store import PostgresStore
from tests.support.stored import context, history, turn

BRANCHES = 1_000
DEPTH = 100
_LOAD = queries.load("reading.sql")["load_context"]


async def test_a_thousand_branches_of_one_response_are_not_read_for_one_of_them(
    database: str,
) -> None:
    """P8, M10: the first and the last read the same, and neither sees the others."""
    async with open_pool(database) as pool:
        store = PostgresStore(pool)
        await turn(store, "wide", "root")
        names = [f"b{number:04}" for number in range(BRANCHES)]
        await turn(store, "wide", names[0], after="root")
        await asyncio.gather(*(turn(store, "wide", name, after="root") for name in names[1:]))
        threads = {(await context(store, "wide", name)).end.thread_id for name in names[::100]}
        read = [await _read(pool, "wide", name) for name in (names[0], names[1], names[-1])]
        seen = [await history(store, "wide", name) for name in names[::333]]
    assert len(threads) == BRANCHES // 100
    assert seen == [["root/in", "root/out", f"{n}/in", f"{n}/out"] for n in names[::333]]
    # The first went on in the thread of the root itself.
    assert read == [
        {"threads": 1, "items": 4},
        {"threads": 2, "items": 4},
        {"threads": 2, "items": 4},
    ]


async def test_a_history_through_many_branches_reads_no_item_but_its_own(database: str) -> None:
    """P8, M10: each level adds its thread and its own two items, whatever went on beside it."""
    async with open_pool(database) as pool:
        store = PostgresStore(pool)
        await turn(store, "deep", "d0")
        for level in range(1, DEPTH + 1):
            # The first to continue a response takes its thread over, the second branches it.
            await turn(store, "deep", f"aside{level}", after=f"d{level - 1}")
            await turn(store, "deep", f"d{level}", after=f"d{level - 1}")
        read = await _read(pool, "deep", f"d{DEPTH}")
        seen = await history(store, "deep", f"d{DEPTH}")
    assert seen == [f"d{level}/{side}" for level in range(DEPTH + 1) for side in ("in", "out")]
    assert read == {"threads": DEPTH + 1, "items": 2 * (DEPTH + 1)}


async def _read(pool: Pool, tenant: str, response_id: str) -> dict[str, int]:
    """Return how many rows of each table the history of a response is read from."""

    async def explain(connection: psycopg.AsyncConnection[tuple[Any, ...]], _attempt: int) -> Any:
        await connection.execute("SELECT set_config('holdfast.tenant', %s, false)", (tenant,))
        cursor = await connection.execute(
            b"EXPLAIN (ANALYZE, FORMAT JSON) " + _LOAD,
            {"tenant": tenant, "id": response_id, "most": Int8(1 << 20)},
        )
        row = await cursor.fetchone()
        assert row is not None
        return row[0][0]["Plan"]

    rows: dict[str, int] = {"threads": 0, "items": 0}
    for scan in _scans(await pool.run(explain)):
        table = scan["Relation Name"]
        if table in rows:
            removed = scan.get("Rows Removed by Filter", 0)
            # Averages over the loops, which may be rounded.
            rows[table] += round((scan["Actual Rows"] + removed) * scan["Actual Loops"])
    return rows


def _scans(node: dict[str, Any]) -> list[dict[str, Any]]:
    found = [scan for child in node.get("Plans", []) for scan in _scans(child)]
    return [*found, node] if "Relation Name" in node and "Scan" in node["Node Type"] else found
