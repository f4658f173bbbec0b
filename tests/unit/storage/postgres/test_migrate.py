"""The migrations that are shipped."""

from __future__ import annotations

import re

from storage.postgres.migrate import shipped


def test_migrations_are_numbered_without_gap_or_double() -> None:
    """So that their order is plain, and a merge of two of one number is seen."""
    names = [migration.name for migration in shipped()]
    assert all(re.fullmatch(r"\d{4}_[a-z0-9_]+\.sql", name) for name in names)
    assert [int(name[:4]) for name in names] == list(range(1, len(names) + 1))


def test_every_primary_key_starts_with_the_tenant() -> None:
    """X1: the tenant is the distribution column, too."""
    for migration in shipped():
        for key in re.findall(r"PRIMARY KEY \(([^)]*)\)", migration.sql.decode()):
            assert key.split(",")[0].strip() == "tenant"
