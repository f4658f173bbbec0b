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

-- name: role
-- What the application's role may, and whether we may act as it; no row if there is none.
SELECT rolsuper OR rolbypassrls, pg_has_role(current_user, oid, 'MEMBER')
FROM pg_roles
WHERE rolname = 'holdfast_app';

-- name: create_role
-- The application's role. It belongs to the whole server, as roles do.
CREATE ROLE holdfast_app NOLOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE NOBYPASSRLS;

-- name: become_role
-- Lets our own user act as it: who makes a role does not thereby have its rights.
GRANT holdfast_app TO CURRENT_USER;
