"""The application's role: made where we may, asked for where we may not. Of a server of its own."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import psycopg
import pytest
import pytest_asyncio
from psycopg.conninfo import make_conninfo

from engine.errors import StorageUnavailable
from storage.postgres.embedded import EmbeddedPostgres, embedded_postgres
from storage.postgres.migrate import migrate, pending, shipped
from storage.postgres.pool import open_pool
from storage.postgres.role import RoleMissing
from storage.postgres.store import PostgresStore
from tests.support.fix_postgres import create_database
from tests.support.stored import history, turn


@pytest_asyncio.fixture
async def server(data_dir: Path, postgres_binaries: Path | None) -> AsyncIterator[EmbeddedPostgres]:
    async with embedded_postgres(data_dir, binaries=postgres_binaries) as server:
        yield server


async def _as_superuser(server: EmbeddedPostgres, *commands: str) -> None:
    async with await psycopg.AsyncConnection.connect(
        server.conninfo, autocommit=True
    ) as connection:
        for command in commands:
            await connection.execute(command.encode())


async def test_a_login_without_rights_is_told_what_to_ask_for(server: EmbeddedPostgres) -> None:
    """H3: the commands, with its own name in them; nothing is migrated until they were run."""
    await _as_superuser(server, "CREATE ROLE modest LOGIN")
    database = await create_database(server, owner="modest")
    with pytest.raises(RoleMissing, match="CREATE ROLE holdfast_app NOLOGIN") as caught:
        await migrate(database)
    assert 'GRANT holdfast_app TO "modest";' in str(caught.value)
    await _as_superuser(server, "CREATE ROLE holdfast_app NOLOGIN")
    with pytest.raises(RoleMissing, match="may not act as the role"):
        await migrate(database)
    assert len(await pending(database)) == len(shipped())
    async with open_pool(database) as pool:
        with pytest.raises(StorageUnavailable, match="holdfast migrate"):
            await PostgresStore(pool).get("t", "r1")
    await _as_superuser(server, "GRANT holdfast_app TO modest")
    await migrate(database)
    async with open_pool(database) as pool:
        await turn(PostgresStore(pool), "t", "r1")


async def test_a_login_that_may_make_roles_makes_it(server: EmbeddedPostgres) -> None:
    """H3: a managed database's administrator is no superuser; another login then only needs the grant."""
    await _as_superuser(server, "CREATE ROLE admin LOGIN CREATEROLE", "CREATE ROLE worker LOGIN")
    database = await create_database(server, owner="admin")
    await migrate(database)
    async with await psycopg.AsyncConnection.connect(database, autocommit=True) as connection:
        await connection.execute("GRANT holdfast_app TO worker")
    async with open_pool(make_conninfo(database, user="worker")) as pool:
        store = PostgresStore(pool)
        await turn(store, "t", "r1")
        assert await history(store, "t", "r1") == ["r1/in", "r1/out"]
        assert await store.claim("w/0#1", 30.0, queued=1, expired=1) == []


async def test_a_role_that_could_pass_by_the_wall_is_refused(server: EmbeddedPostgres) -> None:
    """X1: before anything is migrated, with the command that puts it right."""
    await _as_superuser(server, "CREATE ROLE holdfast_app NOLOGIN BYPASSRLS")
    database = await create_database(server)
    with pytest.raises(RoleMissing, match="ALTER ROLE holdfast_app NOSUPERUSER NOBYPASSRLS"):
        await migrate(database)
    assert len(await pending(database)) == len(shipped())


async def test_a_server_without_the_role_says_what_to_do(server: EmbeddedPostgres) -> None:
    """H3: a worker before the first `holdfast migrate`; it serves as soon as that was run."""
    database = await create_database(server)
    async with open_pool(database) as pool:
        store = PostgresStore(pool)
        with pytest.raises(StorageUnavailable, match="holdfast migrate"):
            await store.get("t", "r1")
        await migrate(database)
        await turn(store, "t", "r1")
