"""What a turn of a conversation stores does not grow with it, and neither does what reading a page takes."""

from __future__ import annotations

import json
from typing import Any

import psycopg

from storage.postgres import queries
from storage.postgres.pool import open_pool
from storage.postgres.store import PostgresStore
from tests.support.stored import a_conversation, a_turn, an_end, place_of, said, take_turn

TURNS = 200
_LIST = queries.load("conversations.sql")["list_conversation_items_desc"]
_STORED = """
SELECT (SELECT sum(pg_column_size(i.*)) FROM items i WHERE response_id = %(id)s)
     + (SELECT sum(pg_column_size(r.*)) FROM responses r WHERE id = %(id)s)
     + (SELECT sum(pg_column_size(c.*)) FROM conversations c)
"""


async def test_a_turn_stores_as_much_at_the_end_as_at_the_beginning(database: str) -> None:
    """P8: turn 200 takes no more than 1.1 times the bytes of turn 5, in one thread."""
    async with open_pool(database) as pool:
        store = PostgresStore(pool)
        await a_conversation(store, "long", "c")
        begun = await place_of(store, "long", "c")
        place, sizes = begun, {}
        for number in range(1, TURNS + 1):
            name = f"r{number:03}"
            lease = await store.accept(a_turn("long", name, place))
            await store.finish(an_end(lease))
            found = await store.load_conversation("long", "c", items=False)
            assert found is not None
            place = found.place
            if number in (5, TURNS):
                sizes[number] = await _one(database, _STORED, {"id": name})
        items = await said(store, "long", "c")
    assert place.end.thread_id == begun.end.thread_id
    assert items == [f"r{n:03}/{side}" for n in range(1, TURNS + 1) for side in ("in", "out")]
    assert sizes[TURNS] <= 1.1 * sizes[5]


async def test_a_page_of_items_reads_a_page(database: str) -> None:
    """P8: however long the conversation is, and however often a turn of it failed."""
    async with open_pool(database) as pool:
        store = PostgresStore(pool)
        await a_conversation(store, "paged", "p")
        for number in range(60):
            await take_turn(store, "paged", f"p{number}", "p", joins=number % 20 != 19)

        async def explain(
            connection: psycopg.AsyncConnection[tuple[Any, ...]], _attempt: int
        ) -> Any:
            await connection.execute("SELECT set_config('holdfast.tenant', 'paged', false)")
            values = {"tenant": "paged", "id": "p", "after": None, "limit": 6, "most": 1 << 20}
            cursor = await connection.execute(b"EXPLAIN (ANALYZE, FORMAT JSON) " + _LIST, values)
            row = await cursor.fetchone()
            assert row is not None
            return row[0][0]["Plan"]

        plan = await pool.run(explain)
    read = sum(
        scan["Actual Rows"] * scan["Actual Loops"]
        for scan in _scans(plan)
        if scan["Relation Name"] == "items"
    )
    # Three failures made three branches: a page of each of the four threads at most.
    assert read <= 4 * 6, json.dumps(plan, indent=1)


def _scans(node: dict[str, Any]) -> list[dict[str, Any]]:
    found = [scan for child in node.get("Plans", []) for scan in _scans(child)]
    return [*found, node] if "Relation Name" in node and "Scan" in node["Node Type"] else found


async def _one(conninfo: str, query: str, values: dict[str, Any]) -> int:
    async with await psycopg.AsyncConnection.connect(conninfo) as connection:
        row = await (await connection.execute(query.encode(), values)).fetchone()
    assert row is not None
    return int(row[0])
