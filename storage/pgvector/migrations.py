"""The tables of the vector index: applied by `holdfast migrate` and `up` where the settings choose it."""

from __future__ import annotations

from collections.abc import Callable

import psycopg

from storage.postgres.migrate import migrate, shipped


class ExtensionMissing(Exception):
    """The server has no extension `vector`, or we may not create it; the message says what to do."""


async def migrate_vectors(
    conninfo: str, *, progress: Callable[[str], None] = lambda _line: None
) -> list[str]:
    """Apply what is missing and return its names; otherwise as `storage.postgres.migrate.migrate`.

    Raises ExtensionMissing where there is no pgvector, and nothing was changed.
    """
    try:
        return await migrate(conninfo, progress=progress, migrations=shipped(__package__))
    except (psycopg.errors.FeatureNotSupported, psycopg.errors.UndefinedFile) as error:
        raise ExtensionMissing(
            "This Postgres has no extension `vector`: install pgvector on its server, or "
            "choose another index.kind."
        ) from error
    except psycopg.errors.InsufficientPrivilege as error:
        raise ExtensionMissing(
            "We may not create the extension `vector`. Somebody who may has to do it once in this "
            "database: CREATE EXTENSION vector; then run `holdfast migrate` again."
        ) from error
