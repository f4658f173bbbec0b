"""The whole store in Postgres."""

from __future__ import annotations

from storage.postgres.runs import PostgresRuns


class PostgresStore(PostgresRuns):
    """`engine.ports.Store` on a pool; see `storage.postgres.responses` and `storage.postgres.runs`."""
