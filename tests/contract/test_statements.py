"""Every statement of ours names the tenant and goes by key; what a turn stores does not grow."""

from __future__ import annotations

import json
import re
from typing import Any

import psycopg
import pytest
from psycopg.types.numeric import Int8

from engine.ports import ThreadPoint
from storage.postgres import queries
from storage.postgres.migrate import migrate
from storage.postgres.pool import open_pool
from storage.postgres.store import PostgresStore
from tests.support.stored import a_response, an_end, turn

_FILES = (
    "reading.sql",
    "writing.sql",
    "runs.sql",
    "removal.sql",
    "approvals.sql",
    "connectors.sql",
    "prompts.sql",
    "conversations.sql",
    "files.sql",
    "vector_stores.sql",
    "attachments.sql",
    "detaching.sql",
    "ingestions.sql",
)
_STATEMENTS = {name: sql for file in _FILES for name, sql in queries.load(file).items()}
_GATES = queries.load("gates.sql")
_VALUES: dict[str, Any] = {
    "tenant": "t", "id": "r", "after": "a", "model": None, "limit": Int8(2), "token": Int8(1),
    "count": Int8(1), "item_ids": ["i"], "types": ["t"], "call_ids": [None], "items": [b""],
    "replays": [None], "status": "s", "head": b"", "worker": "w", "lease_seconds": 1.0,
    "new_thread": "n", "new_root": None, "after_thread": "a", "after_position": Int8(1), "previous": None,
    "key": "k", "digest": b"", "state": "running", "background": True, "owner": "w", "work": b"",
    "first": Int8(0), "last": Int8(1), "frames": b"", "streamed": True, "acceptance": Int8(1),
    "answers": ["r"], "asked_ids": ["r"], "asked": [b""],
    "label": "l", "fields": b"", "sealed": None, "revision": "1",
    "before": "0", "version": Int8(1), "number": Int8(1), "nonce": b"", "body": b"", "default": True,
    "keep_seconds": None, "ids": ["r"], "conversation": "c", "seen": "s", "joins": True, "change": "c",
    "metadata": b"", "item_id": "i", "wanted": True, "thread": "a", "until": Int8(1), "positions": [Int8(0)],
    "seconds": 1.0, "keep": 3600, "purpose": "p", "filename": "f", "bytes": Int8(1), "sha256": b"",
    "media_type": "m", "file_id": "f", "keys": ["k"], "counts": False,
    "name": "n", "description": None, "days": Int8(1), "above": "a", "below": "b", "set_name": True,
    "set_metadata": True, "set_days": True, "file_ids": ["f"], "batch": "b", "labels": "{}",
    "sizes": [Int8(1)], "overlaps": [Int8(1)], "path": "exists($.\"k\" ? (@ == $v0))", "vars": '{"v0": 1}',
    "numbers": [Int8(1)], "expired": True, "whole": True, "texts": [b""], "tokens": [Int8(1)],
    "past": Int8(0), "vectors": [b""], "lowest": Int8(0), "highest": Int8(1),
    "error_code": None, "error": None, "most": Int8(9),
}  # fmt: skip
_KEYS = {
    "threads": {"id", "parent_id"},
    "items": {"thread_id", "id"},
    "responses": {"id", "created_at", "thread_id"},
    "runs": {"response_id"},
    "events": {"response_id"},
    "idempotency": {"key"},
    "approvals": {"id", "response_id", "answered_by"},
    "conversations": {"id", "created_at", "thread_id"},
    "connectors": {"id", "label", "created_at"},
    "prompts": {"id", "created_at"},
    "prompt_versions": {"prompt_id"},
    "files": {"id", "created_at"},
    "uploads": {"id"},
    "blobs": {"key", "holder"},
    "vector_stores": {"id", "created_at"},
    "attachments": {"id", "store", "file_id", "batch"},
    "attachment_batches": {"id", "store"},
    "chunks": {"attachment"},
    "ingestions": {"attachment"},
    "removals": {"attachment"},
    "dropped_chunks": {"attachment"},
}


def _code(statement: bytes) -> str:
    return "\n".join(line.split("--")[0] for line in statement.decode().splitlines())


@pytest.mark.parametrize("name", sorted(_STATEMENTS))
def test_every_statement_names_the_tenant_and_says_what_it_does(name: str) -> None:
    """X1: whatever reads, changes or removes rows of a table names it, and so does what adds them."""
    assert _STATEMENTS[name].startswith(b"-- ")
    code = _code(_STATEMENTS[name])
    tables = "|".join(_KEYS)
    touched = re.findall(
        rf"(?:FROM|JOIN|UPDATE) ({tables})\b(.*?)(?=(?:FROM|JOIN|UPDATE|INSERT INTO) (?:{tables})\b|\Z)",
        code,
        re.DOTALL,
    )
    added = re.findall(r"INSERT INTO \w+ \(\s*(\w+)(.*?)\bSELECT\s+(\S+)", code, re.DOTALL)
    assert touched or added
    for table, rest in touched:
        assert re.search(r"tenant = %\(tenant\)s", rest), table
    for first, _, value in added:
        assert (first, value.rstrip(",")) == ("tenant", "%(tenant)s")


def test_what_goes_over_all_tenants_only_calls_functions() -> None:
    """X1: the gates touch no table themselves."""
    for name, statement in _GATES.items():
        assert re.fullmatch(
            r"SELECT (\* FROM holdfast_\w+|set_config)\([^()]*(%\(\w+\)s[^()]*)*\);",
            _code(statement).strip(),
        ), name


@pytest.mark.parametrize("name", sorted(_STATEMENTS))
async def test_every_statement_goes_by_key_also_over_tables_that_are_new(
    empty_database: str, name: str
) -> None:
    """P8: no plan reads a table, or all of a tenant: with no statistics, or those of a few rows."""
    await migrate(empty_database)
    await _check_plan(empty_database, name)
    async with open_pool(empty_database) as pool:
        await turn(PostgresStore(pool), "t", "r")
    async with await psycopg.AsyncConnection.connect(empty_database, autocommit=True) as connection:
        await connection.execute("ANALYZE")
    await _check_plan(empty_database, name)


async def _check_plan(database: str, name: str) -> None:
    numbers = name == "read_events"  # its `after` is the number of an event
    values = {**_VALUES, "after": Int8(1)} if numbers else _VALUES
    async with open_pool(database, max_size=2) as pool:

        async def explain(
            connection: psycopg.AsyncConnection[tuple[Any, ...]], _attempt: int
        ) -> list[dict[str, Any]]:
            await connection.execute("SELECT set_config('holdfast.tenant', 't', false)")
            cursor = await connection.execute(b"EXPLAIN (FORMAT JSON) " + _STATEMENTS[name], values)
            row = await cursor.fetchone()
            assert row is not None
            plans: list[dict[str, Any]] = row[0]
            return plans

        [plan] = await pool.run(explain)
    for scan in _scans(plan["Plan"]):
        condition = scan.get("Index Cond") or scan.get("Recheck Cond") or ""
        assert "tenant = " in condition + scan.get("Filter", ""), json.dumps(scan, indent=1)
        columns = {word.strip("(),") for word in condition.split()}
        assert columns & _KEYS[scan["Relation Name"]], json.dumps(scan, indent=1)


def _scans(node: dict[str, Any]) -> list[dict[str, Any]]:
    found = [scan for child in node.get("Plans", []) for scan in _scans(child)]
    is_scan = "Relation Name" in node and node["Node Type"].endswith("Scan")
    return [*found, node] if is_scan else found


async def test_what_a_turn_stores_does_not_grow_with_the_conversation(database: str) -> None:
    """P8: turn 500 takes no more than 1.1 times the bytes of turn 5."""
    async with open_pool(database) as pool:
        store = PostgresStore(pool)
        after: ThreadPoint | None = None
        for number in range(501):
            name = f"r{number:03}"
            lease = await store.accept(a_response("long", name, after=after))
            await store.finish(an_end(lease))
            if after is None:
                context = await store.load_context("long", name)
                assert context is not None
                after = context.end
            else:
                after = ThreadPoint(after.thread_id, after.position + 2)
        context = await store.load_context("long", "r500")
        assert context is not None
        assert len(context.items) == 1002
    assert await _bytes(database, "r500") <= 1.1 * await _bytes(database, "r005")


async def _bytes(conninfo: str, response_id: str) -> int:
    """Return the bytes of all rows that are there because of a response."""
    async with await psycopg.AsyncConnection.connect(conninfo) as connection:
        cursor = await connection.execute(
            """
            SELECT (SELECT sum(pg_column_size(i.*)) FROM items i WHERE response_id = %(id)s)
                 + (SELECT sum(pg_column_size(r.*)) FROM responses r WHERE id = %(id)s)
            """,
            {"id": response_id},
        )
        row = await cursor.fetchone()
    assert row is not None
    return int(row[0])
