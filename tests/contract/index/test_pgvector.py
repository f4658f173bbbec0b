"""What is pgvector's alone: its tables are behind the wall, and there only where they were asked for."""

from __future__ import annotations

import asyncio
import re

import psycopg
import pytest
from psycopg import sql
from psycopg.conninfo import make_conninfo

from engine.indexing import take_out
from engine.ports import VectorIndex
from storage.pgvector import index as pgvector
from storage.pgvector.index import PgvectorIndex
from storage.pgvector.migrations import ExtensionMissing, migrate_vectors
from storage.postgres import queries
from storage.postgres.embedded import EmbeddedPostgres
from storage.postgres.embedded_data import USER
from storage.postgres.migrate import migrate, pending
from storage.postgres.pool import open_pool
from tests.support.fix_postgres import create_database
from tests.support.vectors import a_chunk, unit

_STATEMENTS = queries.load("index.sql", pgvector.__package__ or "")
_TABLES = ["index_vectors", "index_words"]
_STOLEN = (
    "INSERT INTO index_words (tenant, store, model, attachment, number, words)"
    " VALUES (%s, 's', 'm', 'a', 0, '')"
)
QUESTION = unit(1, 0, 0, 0)


@pytest.mark.parametrize("name", sorted(_STATEMENTS.keys() - {"clear"}))
def test_every_statement_names_the_tenant_and_says_what_it_does(name: str) -> None:
    """X1: each table that is touched is asked for one tenant's rows."""
    assert _STATEMENTS[name].startswith(b"-- ")
    code = "\n".join(line.split("--")[0] for line in _STATEMENTS[name].decode().splitlines())
    touched = re.findall(r"(?:FROM|JOIN|INSERT INTO) (index_\w+)", code)
    assert touched
    named = re.findall(r"tenant = %\(tenant\)s", code) + re.findall(r"SELECT\s+%\(tenant\)s,", code)
    assert len(named) == len(touched)


async def test_the_tables_are_made_where_they_are_chosen(empty_database: str) -> None:
    """The migrations of every database need no extension; those of the index follow them, once."""
    await migrate(empty_database)
    assert await migrate_vectors(empty_database) == ["vectors_0001.sql"]
    assert await migrate_vectors(empty_database) == []
    assert await pending(empty_database) == []
    assert await migrate(empty_database) == []


async def test_the_index_may_have_a_database_of_its_own(empty_database: str) -> None:
    """`index.url` names it: nothing else of ours has to be there."""
    await migrate_vectors(empty_database)
    async with open_pool(empty_database) as pool:
        index: VectorIndex = PgvectorIndex(pool, "m")
        await index.insert("t", "s", "a", [a_chunk(0)])
        assert await index.count("t", "s", "a") == 1


async def test_who_may_not_create_the_extension_is_told_who_has_to(
    postgres_server: EmbeddedPostgres, plain_owner: str
) -> None:
    """A managed Postgres: nothing was changed, and it works once somebody has created it."""
    conninfo = await create_database(postgres_server, owner=plain_owner)
    with pytest.raises(ExtensionMissing, match="CREATE EXTENSION vector"):
        await migrate_vectors(conninfo)
    async with await psycopg.AsyncConnection.connect(
        make_conninfo(conninfo, user=USER), autocommit=True
    ) as connection:
        await connection.execute("CREATE EXTENSION vector")
    assert await migrate_vectors(conninfo) == ["vectors_0001.sql"]
    async with open_pool(conninfo) as pool:
        index = PgvectorIndex(pool, "m")
        await index.insert("t", "s", "a", [a_chunk(0, "apple")])
        assert len(await index.by_vector("t", "s", QUESTION, limit=9)) == 1
        assert len(await index.by_words("t", "s", "apple", limit=9)) == 1
        await index.clear()
        assert await index.count("t", "s", "a") == 0


@pytest.mark.parametrize("table", _TABLES)
async def test_a_tenant_sees_and_changes_nothing_of_another(
    vector_database: str, tenant: str, table: str
) -> None:
    """X1: row-level security holds for the index too, whatever the statement says."""
    other = f"{tenant}-other"
    async with open_pool(vector_database) as pool:
        index = PgvectorIndex(pool, "m")
        for of in (tenant, other):
            await index.insert(of, "s", "a", [a_chunk(0, "apple")])
    name = sql.Identifier(table)
    async with await psycopg.AsyncConnection.connect(
        vector_database, autocommit=True
    ) as connection:
        await connection.execute("SET ROLE holdfast_app")
        cursor = await connection.execute(sql.SQL("SELECT count(*) FROM {}").format(name))
        assert await cursor.fetchone() == (0,)
        await connection.execute("SELECT set_config('holdfast.tenant', %s, false)", [tenant])
        cursor = await connection.execute(sql.SQL("SELECT DISTINCT tenant FROM {}").format(name))
        assert await cursor.fetchall() == [(tenant,)]
        await connection.execute(sql.SQL("DELETE FROM {}").format(name))
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            await connection.execute(sql.SQL("TRUNCATE {}").format(name))
        with pytest.raises(psycopg.errors.InsufficientPrivilege, match="row-level security"):
            await connection.execute(_STOLEN, [other])
        await connection.execute("SELECT set_config('holdfast.tenant', %s, false)", [other])
        cursor = await connection.execute(sql.SQL("SELECT count(*) FROM {}").format(name))
        assert await cursor.fetchone() == (1,)


async def test_the_gate_looks_nowhere_but_where_it_was_made(vector_database: str) -> None:
    """X1: it is closed to others, and its search path is fixed."""
    async with await psycopg.AsyncConnection.connect(vector_database) as connection:
        cursor = await connection.execute(
            """
            SELECT proconfig, has_function_privilege('public', oid, 'EXECUTE')
            FROM pg_proc WHERE proname = 'holdfast_clear_index'
            """
        )
        assert await cursor.fetchall() == [(["search_path=pg_catalog, public, pg_temp"], False)]


async def test_removals_are_made_of_short_transactions(
    vector_database: str, tenant: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """P2: one that takes longer than a statement may would be repeated for ever, and remove nothing."""
    monkeypatch.setattr(pgvector, "_REMOVED_AT_ONCE", 10)
    async with open_pool(vector_database) as pool:
        old, new = PgvectorIndex(pool, "old"), PgvectorIndex(pool, "new")
        for index, attachment, count in (
            (old, "a", 7),
            (new, "a", 7),
            (new, "b", 9),
            (new, "c", 9),
        ):
            chunks = [a_chunk(number, "apple") for number in range(count)]
            await index.insert(tenant, "s", attachment, chunks)
        for left in (13, 3):
            assert not await new.remove(tenant, "s", ["a", "b"])
            assert await _rows(vector_database, tenant) == dict.fromkeys(_TABLES, left + 9)
        assert await new.remove(tenant, "s", ["a", "b"])
        assert await _rows(vector_database, tenant) == dict.fromkeys(_TABLES, 9)
        assert await new.count(tenant, "s", "c") == 9


async def test_removals_beside_each_other_leave_nothing(
    vector_database: str, tenant: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """P7: whose lot was removed by somebody else while he waited for it does not think that he is done."""
    monkeypatch.setattr(pgvector, "_REMOVED_AT_ONCE", 10)
    async with open_pool(vector_database) as pool:
        index = PgvectorIndex(pool, "m")
        await index.insert(tenant, "s", "a", [a_chunk(number) for number in range(35)])
        async with await psycopg.AsyncConnection.connect(vector_database) as other:
            taken = await other.execute(
                "DELETE FROM index_vectors WHERE tenant = %s AND number < 10", [tenant]
            )
            assert taken.rowcount == 10
            removing = asyncio.create_task(index.remove(tenant, "s", ["a"]))
            await _until_somebody_waits(vector_database)
        assert not await removing
        async with asyncio.timeout(20):
            await asyncio.gather(*(take_out(index, tenant, "s", "a") for _ in range(3)))
        assert await _rows(vector_database, tenant) == dict.fromkeys(_TABLES, 0)


async def _rows(conninfo: str, tenant: str) -> dict[str, int]:
    """Return how many rows of a tenant each table has."""
    counted = {}
    async with await psycopg.AsyncConnection.connect(conninfo) as connection:
        for table in _TABLES:
            statement = sql.SQL("SELECT count(*) FROM {} WHERE tenant = %s").format(
                sql.Identifier(table)
            )
            [counted[table]] = await (await connection.execute(statement, [tenant])).fetchone() or [
                0
            ]
    return counted


async def _until_somebody_waits(conninfo: str) -> None:
    """Wait until a connection to this database waits for a lock."""
    async with (
        asyncio.timeout(20),
        await psycopg.AsyncConnection.connect(conninfo, autocommit=True) as connection,
    ):
        while True:
            cursor = await connection.execute(
                "SELECT count(*) FROM pg_stat_activity"
                " WHERE datname = current_database() AND wait_event_type = 'Lock'"
            )
            if await cursor.fetchone() != (0,):
                return
            await asyncio.sleep(0.01)
