"""Applies `sql/migrations` in order, each in its own transaction, and records what was applied.

Migrations only ever expand what the release before needs: a worker never applies them, and an older
worker goes on running on a newer schema. A file that was applied is never edited afterwards.
"""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from importlib.resources import files

import msgspec
import psycopg

from engine.errors import StorageUnavailable
from storage.postgres import queries
from storage.postgres.pool import Connection
from storage.postgres.role import provide_role

_SQL = queries.load("migrations.sql")


class Migration(msgspec.Struct, frozen=True):
    """One numbered file: `name` is the file's, `sql` its bytes."""

    name: str
    sql: bytes

    @property
    def checksum(self) -> str:
        """The SHA-256 of the file, in hexadecimal."""
        return hashlib.sha256(self.sql).hexdigest()


class ChangedMigration(Exception):
    """A migration was edited after it had been applied here: what the schema is, is unknown."""

    def __init__(self, name: str) -> None:
        super().__init__(
            f"migration {name} was already applied to this database with other contents; "
            "restore the file and put the change into a new migration"
        )
        self.name = name


def shipped(package: str = __package__) -> list[Migration]:
    """Return the migrations of this release that a package has, in order."""
    directory = files(package) / "sql" / "migrations"
    found = [
        Migration(file.name, file.read_bytes())
        for file in directory.iterdir()
        if file.name.endswith(".sql")
    ]
    return sorted(found, key=lambda migration: migration.name)


async def pending(conninfo: str, *, timeout: float = 60.0) -> list[str]:
    """Return the names of the migrations that `migrate` would apply; changes nothing.

    Raises `ChangedMigration`, and `StorageUnavailable` when the database cannot be asked.
    """
    async with _connected(conninfo, timeout) as connection:
        return [migration.name for migration in await _missing(connection, shipped())]


async def migrate(
    conninfo: str,
    *,
    progress: Callable[[str], None] = lambda _line: None,
    timeout: float = 60.0,
    migrations: list[Migration] | None = None,
) -> list[str]:
    """Apply what is missing and return its names; `progress` gets a line for each.

    Of several at once, one works and the others wait, `timeout` seconds at most. Raises
    `ChangedMigration` or `RoleMissing` before any table is touched, and `StorageUnavailable` when the
    database cannot be reached or a wait was too long; what was applied by then stays applied.
    """
    async with _connected(conninfo, timeout) as connection:
        await connection.execute(_SQL["lock"])
        await connection.execute(_SQL["create_record"])
        missing = await _missing(connection, shipped() if migrations is None else migrations)
        await provide_role(connection)
        for migration in missing:
            progress(f"applying {migration.name}")
            await _apply(connection, migration)
    return [migration.name for migration in missing]


@asynccontextmanager
async def _connected(conninfo: str, timeout: float) -> AsyncIterator[Connection]:
    try:
        connection = await psycopg.AsyncConnection.connect(
            conninfo, autocommit=True, connect_timeout=max(2, int(timeout))
        )
        async with connection:
            await connection.execute(
                _SQL["limit_waiting"], {"milliseconds": str(int(timeout * 1000))}
            )
            yield connection
    except psycopg.OperationalError as error:
        raise StorageUnavailable(f"The database cannot be migrated now: {error}") from error


async def _missing(connection: Connection, migrations: list[Migration]) -> list[Migration]:
    applied = await _applied(connection)
    for migration in migrations:
        if applied.get(migration.name, migration.checksum) != migration.checksum:
            raise ChangedMigration(migration.name)
    return [migration for migration in migrations if migration.name not in applied]


async def _applied(connection: Connection) -> dict[str, str]:
    row = await (await connection.execute(_SQL["has_record"])).fetchone()
    if row is None or not row[0]:
        return {}
    rows = await (await connection.execute(_SQL["applied"])).fetchall()
    return dict(rows)


async def _apply(connection: Connection, migration: Migration) -> None:
    async with connection.transaction():
        # Without parameters: a file holds several statements, and may hold percent signs.
        await connection.execute(migration.sql)
        await connection.execute(
            _SQL["record"], {"name": migration.name, "checksum": migration.checksum}
        )
