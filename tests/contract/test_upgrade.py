"""Migrations on a database that is in use."""

from __future__ import annotations

import psycopg

from engine.ports import Lease
from storage.postgres.migrate import migrate, shipped
from storage.postgres.pool import open_pool
from storage.postgres.store import PostgresStore
from tests.support.stored import an_end, history, turn
from tests.support.vector_stores import a_vector_store, attach, ingest

_OLD_ROWS = """
INSERT INTO threads (tenant, id, root_id, tip, writer, length) VALUES
    ('t', 'thr_1', 'thr_1', 2, 'running', 3), ('t', 'thr_2', 'thr_2', 0, 'orphan', 0);
INSERT INTO items (tenant, thread_id, position, id, response_id, side, type, item, replay) VALUES
    ('t', 'thr_1', 0, 'i0', 'done', 'input', 'message', '{}', 'i0'),
    ('t', 'thr_1', 1, 'i1', 'done', 'output', 'message', '{"n":1}', 'i1'),
    ('t', 'thr_1', 2, 'i2', 'running', 'input', 'message', '{}', 'i2');
INSERT INTO responses (
    tenant, id, thread_id, input_start, output_start, output_end, status, model, head,
    lease_owner, lease_expires, lease_token, attempts
) VALUES
    ('t', 'done', 'thr_1', 0, 1, 2, 'completed', 'm', 'head', NULL, NULL, 1, 1),
    ('t', 'running', 'thr_1', 2, 3, NULL, 'in_progress', 'm', 'head',
     'w/0', now() + interval '1 hour', 3, 2),
    ('t', 'orphan', 'thr_2', 0, 0, NULL, 'in_progress', 'm', 'head',
     'w/1', now() - interval '1 hour', 1, 1);
"""


async def test_what_an_older_release_wrote_goes_on(empty_database: str) -> None:
    """P4, M1: what is finished reads back and is continued, what runs keeps its owner and token."""
    await migrate(empty_database, migrations=shipped()[:1])
    async with await psycopg.AsyncConnection.connect(empty_database) as connection:
        await connection.execute(_OLD_ROWS.encode())
    await migrate(empty_database)
    async with open_pool(empty_database) as pool:
        store = PostgresStore(pool)
        done = await store.get("t", "done")
        assert done is not None
        assert (done.status, done.head, done.output) == ("completed", b"head", [b'{"n":1}'])
        await turn(store, "t", "next", after="done")
        assert await history(store, "t", "next") == ["i0", "i1", "next/in", "next/out"]
        await store.finish(an_end(Lease("t", "done", 1)), again=True)
        [claim] = await store.claim("w/2#1", 30.0, queued=9, expired=9)
        assert (claim.lease, claim.attempts) == (Lease("t", "orphan", 2), 2)
        await store.finish(an_end(claim.lease))
        assert await store.renew([Lease("t", "running", 3)], 30.0) == []
        await store.finish(an_end(Lease("t", "running", 3)))
        assert await history(store, "t", "running") == ["i0", "i1", "i2", "running/out"]


async def test_files_of_an_older_release_can_be_attached(empty_database: str) -> None:
    """P1: migration 0008 is for those that were uploaded before it, too."""
    await migrate(empty_database, migrations=shipped()[:7])
    async with await psycopg.AsyncConnection.connect(empty_database) as connection:
        await connection.execute(
            "INSERT INTO files VALUES ('t', 'f', now(), NULL, 'assistants', 'f.txt', 3)"
        )
    await migrate(empty_database)
    async with open_pool(empty_database) as pool:
        store = PostgresStore(pool)
        await a_vector_store(store, "t")
        await attach(store, "t", "f")
        await ingest(store, "text of")
        found = await store.found("t", [("vs/f/0", 0)])
        assert {each.text: each.filename for each in found.values()} == {"text of f": "f.txt"}
        assert await store.delete_file("t", "f")
        assert await store.found("t", [("vs/f/0", 0)]) == {}
