"""The tables of the vector index: applied by `holdfast migrate` and `up` where the settings choose it."""

from __future__ import annotations

from storage.postgres.migrate import Migration, shipped


def vector_migrations() -> list[Migration]:
    """Return the migrations of the index; they follow those that every database has."""
    return shipped(__package__)
