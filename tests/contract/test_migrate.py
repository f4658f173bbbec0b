"""Migrations: in order, once, by one at a time, and never over a file that was changed."""

from __future__ import annotations

import asyncio
import time

import psycopg
import pytest

from engine.errors import StorageUnavailable
from storage.postgres.migrate import ChangedMigration, Migration, migrate, pending, shipped


async def _tables(conninfo: str) -> set[str]:
    async with await psycopg.AsyncConnection.connect(conninfo) as connection:
        rows = await connection.execute(
            "SELECT table_name FROM information_schema.tables WHERE table_schema = 'public'"
        )
        return {row[0] for row in await rows.fetchall()}


async def test_migrating_applies_what_is_pending_once(empty_database: str) -> None:
    """In order, with a line of progress for each; the second time there is nothing to do."""
    names = [migration.name for migration in shipped()]
    assert await pending(empty_database) == names == sorted(names)
    lines: list[str] = []
    assert await migrate(empty_database, progress=lines.append) == names
    assert lines == [f"applying {name}" for name in names]
    assert await pending(empty_database) == []
    assert await migrate(empty_database, progress=lines.append) == []
    assert len(lines) == len(names)
    assert {"threads", "items", "responses"} <= await _tables(empty_database)


async def test_asking_what_is_pending_changes_nothing(empty_database: str) -> None:
    """Not even the table of records is made."""
    await pending(empty_database)
    assert await _tables(empty_database) == set()


async def test_several_migrators_at_once_apply_each_file_once(empty_database: str) -> None:
    """One works, the others wait for it and find nothing to do."""
    async with asyncio.timeout(30):
        applied = await asyncio.gather(*(migrate(empty_database) for _ in range(5)))
    names = [migration.name for migration in shipped()]
    assert sorted(applied) == [[], [], [], [], names]


async def test_a_changed_file_is_refused_before_anything_is_touched(empty_database: str) -> None:
    """The error names the file and says what to do."""
    one = Migration("0001_one.sql", b"CREATE TABLE one ()")
    two = Migration("0002_two.sql", b"CREATE TABLE two ()")
    await migrate(empty_database, migrations=[one])
    changed = Migration(one.name, b"CREATE TABLE other ()")
    with pytest.raises(
        ChangedMigration, match=r"0001_one\.sql was already applied .* new migration"
    ):
        await migrate(empty_database, migrations=[changed, two])
    assert await _tables(empty_database) == {"one", "holdfast_migrations"}


async def test_a_migration_that_fails_leaves_nothing_of_itself(empty_database: str) -> None:
    """Those before it stay; it runs again next time."""
    one = Migration("0001_one.sql", b"CREATE TABLE one ()")
    bad = Migration("0002_bad.sql", b'CREATE TABLE two (); SELECT 1/0 AS "100%s"')
    with pytest.raises(psycopg.errors.DivisionByZero):
        await migrate(empty_database, migrations=[one, bad])
    assert await _tables(empty_database) == {"one", "holdfast_migrations"}
    good = Migration(bad.name, b"CREATE TABLE two ()")
    assert await migrate(empty_database, migrations=[one, good]) == [bad.name]


async def test_a_newer_database_is_no_error(empty_database: str) -> None:
    """Migrations only expand: an older release runs beside a newer one."""
    newer = Migration("0099_newer.sql", b"CREATE TABLE newer ()")
    await migrate(empty_database, migrations=[newer])
    assert await migrate(empty_database) == [migration.name for migration in shipped()]


async def test_the_wait_for_another_migrator_is_bounded(empty_database: str) -> None:
    """P2: StorageUnavailable, not a wait for ever."""
    async with await psycopg.AsyncConnection.connect(empty_database) as other:
        await other.execute("SELECT pg_advisory_lock(5282904721)")
        started = time.monotonic()
        with pytest.raises(StorageUnavailable):
            await migrate(empty_database, timeout=0.2)
        assert time.monotonic() - started < 2.0


async def test_a_server_that_is_away_cannot_be_migrated() -> None:
    """P2: the driver's error is the cause."""
    with pytest.raises(StorageUnavailable) as caught:
        await migrate("host=/nonexistent dbname=nothing")
    assert isinstance(caught.value.__cause__, psycopg.OperationalError)
