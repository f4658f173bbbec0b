"""The engine's ports over Postgres; all SQL is in `sql/`, by name."""
