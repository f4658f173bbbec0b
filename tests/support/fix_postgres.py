"""Fixtures: a real Postgres for the whole run, and databases in it.

`HOLDFAST_TEST_POSTGRES_BIN` names the directory of another server's binaries (default: the wheel's).
"""

from __future__ import annotations

import os
import shutil
import tempfile
import uuid
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import psycopg
import pytest
import pytest_asyncio
from psycopg import sql
from psycopg.conninfo import make_conninfo

from storage.postgres.embedded import EmbeddedPostgres, embedded_postgres
from storage.postgres.embedded_data import USER
from storage.postgres.migrate import migrate
from storage.postgres.role import provide_role


@pytest.fixture(scope="session")
def postgres_binaries() -> Path | None:
    """Where `initdb` and `postgres` are; None for those of the wheel."""
    given = os.environ.get("HOLDFAST_TEST_POSTGRES_BIN")
    return Path(given) if given else None


@pytest.fixture
def data_dir() -> Iterator[Path]:
    """A directory for a server; not in pytest's own, which only root may enter when root runs it."""
    path = Path(tempfile.mkdtemp(prefix="holdfast-test-"))
    path.chmod(0o711)  # a server in a directory below it runs as somebody else
    yield path
    shutil.rmtree(path)


@pytest_asyncio.fixture(scope="session")
async def postgres_server(postgres_binaries: Path | None) -> AsyncIterator[EmbeddedPostgres]:
    """One server for all tests that do not kill it."""
    path = Path(tempfile.mkdtemp(prefix="holdfast-test-"))
    try:
        async with embedded_postgres(
            path, binaries=postgres_binaries, max_connections=100
        ) as server:
            yield server
    finally:
        shutil.rmtree(path)


@pytest_asyncio.fixture
async def empty_database(postgres_server: EmbeddedPostgres) -> str:
    """The conninfo of a new database without any table."""
    return await create_database(postgres_server)


@pytest_asyncio.fixture(scope="module")
async def database(postgres_server: EmbeddedPostgres) -> str:
    """The conninfo of a migrated database, one for each test module: use a tenant for each test."""
    conninfo = await create_database(postgres_server)
    await migrate(conninfo)
    return conninfo


@pytest_asyncio.fixture(scope="session")
async def plain_owner(postgres_server: EmbeddedPostgres) -> str:
    """A login as operators have it: neither a superuser nor allowed to make roles."""
    async with await psycopg.AsyncConnection.connect(
        postgres_server.conninfo, autocommit=True
    ) as connection:
        await provide_role(connection)
        await connection.execute("CREATE ROLE plain_owner LOGIN")
        await connection.execute("GRANT holdfast_app TO plain_owner")
    return "plain_owner"


@pytest_asyncio.fixture(scope="module")
async def owned_database(postgres_server: EmbeddedPostgres, plain_owner: str) -> str:
    """The conninfo of a migrated database of `plain_owner`, one for each test module."""
    conninfo = await create_database(postgres_server, owner=plain_owner)
    await migrate(conninfo)
    return conninfo


async def empty_tables(conninfo: str) -> None:
    """Remove all rows of a database, whoever's they are; only what was migrated stays noted."""
    async with await psycopg.AsyncConnection.connect(conninfo, autocommit=True) as connection:
        cursor = await connection.execute(
            """
            SELECT quote_ident(tablename) FROM pg_tables
            WHERE schemaname = current_schema() AND tablename <> 'holdfast_migrations'
            """
        )
        tables = ", ".join(row[0] for row in await cursor.fetchall())
        await connection.execute(f"TRUNCATE {tables}".encode())


async def let_pass(conninfo: str, seconds: float) -> None:
    """Let time pass for a store: what it noted of times is moved into the past."""
    async with await psycopg.AsyncConnection.connect(
        make_conninfo(conninfo, user=USER), autocommit=True
    ) as connection:
        await connection.execute(
            """
            WITH passed AS (SELECT make_interval(secs => %(seconds)s) AS time), of_runs AS (
                UPDATE runs
                SET expires = expires - passed.time, queued_at = queued_at - passed.time
                FROM passed
            ), of_files AS (
                UPDATE files
                SET expires_at = expires_at - passed.time, created_at = created_at - passed.time
                FROM passed
            ), of_uploads AS (
                UPDATE uploads
                SET expires_at = expires_at - passed.time, created_at = created_at - passed.time
                FROM passed
            ), of_blobs AS (
                UPDATE blobs SET drop_at = drop_at - passed.time FROM passed
            ), of_vector_stores AS (
                UPDATE vector_stores
                SET expires_at = expires_at - passed.time, created_at = created_at - passed.time,
                    last_active_at = last_active_at - passed.time
                FROM passed
            ), of_attachments AS (
                UPDATE attachments
                SET created_at = created_at - passed.time, late_until = late_until - passed.time
                FROM passed
            ), of_ingestions AS (
                UPDATE ingestions
                SET expires = expires - passed.time, not_before = not_before - passed.time
                FROM passed
            ), of_removals AS (
                UPDATE removals SET ready = ready - passed.time FROM passed
            )
            UPDATE responses SET expires_at = expires_at - passed.time FROM passed
            """,
            {"seconds": seconds},
        )


async def create_database(server: EmbeddedPostgres, *, owner: str = USER) -> str:
    """Make an empty database and return its conninfo, as its owner; it goes with the server."""
    name = f"test_{uuid.uuid4().hex}"
    async with await psycopg.AsyncConnection.connect(
        server.conninfo, autocommit=True
    ) as connection:
        await connection.execute(
            sql.SQL("CREATE DATABASE {} OWNER {}").format(
                sql.Identifier(name), sql.Identifier(owner)
            )
        )
    return make_conninfo(server.conninfo, dbname=name, user=owner)
