"""The role that the application acts as: made where we may, checked where it is there.

It is the subject of row-level security (docs/adr/0007): it owns nothing and cannot bypass that.
"""

from __future__ import annotations

import psycopg

from storage.postgres import queries
from storage.postgres.pool import ROLE, Connection

_SQL = queries.load("migrations.sql")

_MAKE_IT = f"""\
Somebody who may create roles has to do this once, with the user that Holdfast connects as:
    CREATE ROLE {ROLE} NOLOGIN;
    GRANT {ROLE} TO "{{user}}";
Then run `holdfast migrate` again."""


class RoleMissing(Exception):
    """The role is not there, or not as it has to be, and we may not change that."""


async def provide_role(connection: Connection) -> None:
    """Make the role if there is none; raises `RoleMissing`, which says what somebody else has to do."""
    found = await _role(connection)
    if found is None:
        await _create(connection)
        found = await _role(connection)
    bypasses, ours = found or (False, False)
    if bypasses:
        raise RoleMissing(
            f"The role {ROLE} can bypass row-level security, which keeps tenants apart:\n"
            f"    ALTER ROLE {ROLE} NOSUPERUSER NOBYPASSRLS;"
        )
    if not ours:
        await _grant(connection)


async def _role(connection: Connection) -> tuple[bool, bool] | None:
    row = await (await connection.execute(_SQL["role"])).fetchone()
    return None if row is None else (row[0], row[1])


async def _create(connection: Connection) -> None:
    try:
        await connection.execute(_SQL["create_role"])
    except psycopg.errors.InsufficientPrivilege as error:
        raise _advice(connection, f"There is no role {ROLE}, and we may not create it.") from error
    except (psycopg.errors.DuplicateObject, psycopg.errors.UniqueViolation):
        pass  # somebody made it for another database of this server


async def _grant(connection: Connection) -> None:
    try:
        await connection.execute(_SQL["become_role"])
    except psycopg.errors.InsufficientPrivilege as error:
        raise _advice(connection, f"We may not act as the role {ROLE}.") from error


def _advice(connection: Connection, problem: str) -> RoleMissing:
    return RoleMissing(f"{problem} {_MAKE_IT.format(user=connection.info.user)}")
