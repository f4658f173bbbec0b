"""The second wall between tenants: what SQL can do as the application's role (rule X1).

As an operator has it: the tables belong to a login without special rights.
"""

from __future__ import annotations

from collections.abc import AsyncIterator

import msgspec
import psycopg
import pytest
import pytest_asyncio

from engine.ports import AskedApproval, Idempotency, StoredConnector
from storage.postgres.pool import open_pool
from storage.postgres.store import PostgresStore
from tests.contract.suites.files import a_file, an_upload
from tests.support.fix_postgres import empty_tables
from tests.support.stored import a_conversation, a_response, an_end, some_events, turn
from tests.support.vector_stores import some_retrieval

_TABLES = [
    "threads",
    "items",
    "responses",
    "runs",
    "events",
    "idempotency",
    "approvals",
    "connectors",
    "prompts",
    "conversations",
    "prompt_versions",
    "files",
    "uploads",
    "blobs",
    "vector_stores",
    "attachments",
    "attachment_batches",
    "chunks",
    "ingestions",
    "removals",
    "dropped_chunks",
]


@pytest_asyncio.fixture
async def full(owned_database: str) -> str:
    """A database in which tenants `a` and `b` have a row in every table."""
    await empty_tables(owned_database)
    async with open_pool(owned_database) as pool:
        store = PostgresStore(pool)
        for tenant in ("a", "b"):
            await turn(store, tenant, "done")
            await a_conversation(store, tenant, "conv")
            await store.add_connector(tenant, StoredConnector("c", "c", b"{}", None, "1"))
            new = a_response(tenant, "running", streamed=True, events=some_events(0, 1))
            key = Idempotency("key", b"")
            await store.accept(a_response(tenant, "keyed", idempotency=key, queued=True))
            end = an_end(await store.accept(new), events=some_events(2, 3))
            await store.finish(msgspec.structs.replace(end, asked=(AskedApproval("a", b""),)))
            await store.add_prompt(tenant, "prompt", b"{}", b"{}")
            await a_file(store, tenant, "file")
            await an_upload(store, tenant)
        await some_retrieval(store, "a", "b")
    return owned_database


@pytest_asyncio.fixture
async def application(full: str) -> AsyncIterator[psycopg.AsyncConnection]:
    """A connection as the pool has them."""
    async with await psycopg.AsyncConnection.connect(full, autocommit=True) as connection:
        await connection.execute("SET ROLE holdfast_app")
        yield connection


async def _count(connection: psycopg.AsyncConnection, table: str) -> int:
    row = await (await connection.execute(f"SELECT count(*) FROM {table}".encode())).fetchone()
    assert row is not None
    return int(row[0])


async def _become(connection: psycopg.AsyncConnection, tenant: str) -> None:
    await connection.execute("SELECT set_config('holdfast.tenant', %s, false)", [tenant])


async def test_every_table_of_ours_is_behind_the_wall(full: str) -> None:
    """X1: row-level security holds for its owner too; a new table has to have it."""
    async with await psycopg.AsyncConnection.connect(full) as connection:
        cursor = await connection.execute(
            """
            SELECT relname FROM pg_class
            WHERE relnamespace = 'public'::regnamespace AND relkind = 'r'
              AND relrowsecurity AND relforcerowsecurity
            """
        )
        guarded = {row[0] for row in await cursor.fetchall()}
        cursor = await connection.execute(
            "SELECT tablename FROM pg_tables WHERE schemaname = 'public'"
        )
        tables = {row[0] for row in await cursor.fetchall()}
    assert guarded == set(_TABLES) == tables - {"holdfast_migrations"}


@pytest.mark.parametrize("table", _TABLES)
async def test_without_a_tenant_no_row_is_seen(
    application: psycopg.AsyncConnection, table: str
) -> None:
    """X1: nor with the setting as an earlier transaction leaves it behind."""
    assert await _count(application, table) == 0
    await application.execute("SELECT set_config('holdfast.tenant', 'a', true)")
    assert await _count(application, table) == 0
    await _become(application, "")
    assert await _count(application, table) == 0


@pytest.mark.parametrize("table", _TABLES)
async def test_a_tenant_sees_and_changes_nothing_of_another(
    application: psycopg.AsyncConnection, full: str, table: str
) -> None:
    """X1: it reads, updates and deletes its own rows, whatever the statement says."""
    await _become(application, "a")
    cursor = await application.execute(f"SELECT DISTINCT tenant FROM {table}".encode())
    assert await cursor.fetchall() == [("a",)]
    for command in ("UPDATE {} SET tenant = tenant WHERE tenant = 'b'", "DELETE FROM {}"):
        await application.execute(command.format(table).encode())
    await _become(application, "b")
    assert await _count(application, table) > 0


@pytest.mark.parametrize(
    "insert",
    [
        "INSERT INTO threads (tenant, id, root_id, tip, length) VALUES ('b', 'x', 'x', 0, 0)",
        "INSERT INTO events VALUES ('b', 'x', 0, 0, '')",
        "INSERT INTO prompts (tenant, id, head) VALUES ('b', 'x', '')",
        "INSERT INTO prompt_versions (tenant, prompt_id, version, nonce, body)"
        " VALUES ('b', 'prompt', 2, 'x', '')",
        "INSERT INTO idempotency VALUES ('b', 'x', '', 'x')",
        "INSERT INTO approvals VALUES ('b', 'x', 'x', '', NULL)",
        "INSERT INTO connectors VALUES ('b', 'x', 'x', '', NULL, '1')",
        "INSERT INTO chunks VALUES ('b', 'x', 0, '', NULL, NULL)",
        "INSERT INTO removals VALUES ('b', 'x', 'x', now())",
        "INSERT INTO dropped_chunks VALUES ('b', 'x', now())",
        "INSERT INTO attachment_batches VALUES ('b', 'x', 'x', now())",
        "INSERT INTO ingestions (tenant, attachment, not_before) VALUES ('b', 'x', now())",
        "INSERT INTO vector_stores (tenant, id, created_at, name, metadata, last_active_at)"
        " VALUES ('b', 'x', now(), '', '', now())",
        "INSERT INTO attachments"
        " (tenant, id, store, file_id, created_at, attributes, chunk_size, chunk_overlap)"
        " VALUES ('b', 'x', 'x', 'x', now(), '{}', 1, 1)",
        "UPDATE attachments SET tenant = 'b', id = 'stolen'",
        "INSERT INTO runs (tenant, response_id, state, background, attempts, token, work)"
        " VALUES ('b', 'x', 'queued', true, 0, 0, '')",
        "INSERT INTO items (tenant, thread_id, position, id, response_id, side, type, item)"
        " VALUES ('b', 'x', 0, 'x', 'x', 'input', 'x', '')",
        "INSERT INTO responses"
        " (tenant, id, thread_id, input_start, output_start, status, model, head)"
        " VALUES ('b', 'x', 'x', 0, 0, 'x', 'x', '')",
        "UPDATE responses SET tenant = 'b', id = 'stolen'",
    ],
)
async def test_a_tenant_cannot_write_for_another(
    application: psycopg.AsyncConnection, insert: str
) -> None:
    """X1: it is an error, not a row of theirs."""
    await _become(application, "a")
    with pytest.raises(psycopg.errors.InsufficientPrivilege, match="row-level security"):
        await application.execute(insert.encode())


@pytest.mark.parametrize("table", _TABLES)
async def test_the_wall_cannot_be_switched_off(
    application: psycopg.AsyncConnection, table: str
) -> None:
    """X1: `row_security = off` makes reading fail instead of showing everything."""
    await application.execute("SET row_security = off")
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        await _count(application, table)


async def test_the_role_has_no_rights_beyond_the_rows(application: psycopg.AsyncConnection) -> None:
    """X1: it changes no table, no policy and no function, and owns nothing."""
    for command in (
        "ALTER TABLE runs DISABLE ROW LEVEL SECURITY",
        "DROP POLICY own_rows ON runs",
        "TRUNCATE runs",
        "CREATE POLICY mine ON runs USING (true)",
        "SELECT * FROM holdfast_migrations",
        "CREATE OR REPLACE FUNCTION holdfast_cancelled(worker text) RETURNS TABLE"
        " (run_tenant text, run_id text, run_token bigint) LANGUAGE sql AS 'SELECT 1'",
    ):
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            await application.execute(command.encode())
    cursor = await application.execute(
        "SELECT count(*) FROM pg_shdepend WHERE deptype = 'o'"
        " AND refobjid = 'holdfast_app'::regrole"
    )
    assert await cursor.fetchone() == (0,)
    cursor = await application.execute(
        "SELECT rolsuper, rolbypassrls, rolcanlogin FROM pg_roles WHERE rolname = current_user"
    )
    assert await cursor.fetchone() == (False, False, False)


async def test_the_gates_look_nowhere_but_where_they_were_made(
    application: psycopg.AsyncConnection,
) -> None:
    """X1: they are closed to others, and their search path is fixed, temporary objects last."""
    cursor = await application.execute(
        """
        SELECT proname, proconfig, has_function_privilege('public', oid, 'EXECUTE'),
               has_function_privilege('holdfast_app', oid, 'EXECUTE')
        FROM pg_proc WHERE proname LIKE 'holdfast\\_%%'
        """
    )
    gates = await cursor.fetchall()
    assert len(gates) == 16
    for _, settings, public, ours in gates:
        assert settings == ["search_path=pg_catalog, public, pg_temp"]
        assert (public, ours) == (False, True)


async def test_the_owner_of_the_tables_sees_no_content_of_others(full: str) -> None:
    """X1: what the functions run as has what is queued, and may look for what is old or complete; no more."""
    async with await psycopg.AsyncConnection.connect(full, autocommit=True) as owner:
        counts = {table: await _count(owner, table) for table in _TABLES}
        seen = {"runs": 2, "responses": 6, "ingestions": 2, "attachments": 2, "removals": 2}
        seen["dropped_chunks"] = 2
        assert counts == {**dict.fromkeys(_TABLES, 0), **seen}
        for table in ("attachments", "removals", "dropped_chunks"):
            assert (await owner.execute(f"DELETE FROM {table}".encode())).rowcount == 0
        assert (await owner.execute("DELETE FROM responses")).rowcount == 0
        assert (await owner.execute("UPDATE responses SET model = 'x'")).rowcount == 0


async def test_pooled_connections_act_as_the_role_and_name_a_tenant_for_one_transaction_only(
    full: str,
) -> None:
    """X1: nothing of a tenant is left in a connection that another will use."""
    async with open_pool(full, min_size=1, max_size=1) as pool:
        store = PostgresStore(pool)
        assert await store.get("a", "done") is not None

        async def look(connection: psycopg.AsyncConnection, _attempt: int) -> tuple[str, str, int]:
            cursor = await connection.execute(
                "SELECT current_user, current_setting('holdfast.tenant', true), count(*)"
                " FROM responses"
            )
            row = await cursor.fetchone()
            assert row is not None
            return row[0], row[1], row[2]

        assert await pool.run(look) == ("holdfast_app", "", 0)
        await store.claim("w/0#1", 30.0, queued=9, expired=9)
        assert await pool.run(look) == ("holdfast_app", "", 0)
