-- What `migrate.py` asks. The record of migrations belongs to the database, not to a tenant.

-- name: limit_waiting
-- Bounds the wait for another migrator, in milliseconds.
SELECT set_config('lock_timeout', %(milliseconds)s, false);

-- name: lock
-- One migrator at a time in this database; released with the connection. The number is ours alone.
SELECT pg_advisory_lock(5282904721);

-- name: has_record
-- Whether any migration was ever applied here.
SELECT to_regclass('holdfast_migrations') IS NOT NULL;

-- name: create_record
-- The table that says what was applied.
CREATE TABLE IF NOT EXISTS holdfast_migrations (
    name       text        NOT NULL PRIMARY KEY,
    checksum   text        NOT NULL,
    applied_at timestamptz NOT NULL DEFAULT clock_timestamp()
);

-- name: applied
-- What was applied, with the SHA-256 of the file as it was then.
SELECT name, checksum FROM holdfast_migrations;

-- name: record
-- Notes that a migration was applied, in its own transaction.
INSERT INTO holdfast_migrations (name, checksum) VALUES (%(name)s, %(checksum)s);
