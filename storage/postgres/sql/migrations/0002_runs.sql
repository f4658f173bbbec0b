-- Runs, event logs, idempotency keys, retention, and the second wall between tenants (docs/adr/0007).
--
-- The role holdfast_app is there when this is applied: `holdfast migrate` makes it or says how to.

-- What is not finished: a small table whose rows go when the responses are. `expires` and `token` are the
-- lease; both change in place, because no index holds them.
CREATE TABLE runs (
    tenant      text        NOT NULL,
    response_id text        NOT NULL,
    state       text        NOT NULL CHECK (state IN ('queued', 'running')),
    background  boolean     NOT NULL,
    cancel      boolean     NOT NULL DEFAULT false,
    attempts    integer     NOT NULL,
    token       bigint      NOT NULL,  -- counts the owners; a lower token is fenced off
    owner       text COLLATE "C",      -- the worker that runs it, NULL while it is queued
    expires     timestamptz,
    queued_at   timestamptz NOT NULL DEFAULT clock_timestamp(),
    work        bytea       NOT NULL,  -- what another worker needs to run it again
    PRIMARY KEY (tenant, response_id),
    CHECK ((state = 'running') = (owner IS NOT NULL)),
    CHECK ((state = 'running') = (expires IS NOT NULL))
) WITH (
    fillfactor = 50, autovacuum_vacuum_scale_factor = 0.0, autovacuum_vacuum_threshold = 1000
);

-- For what goes over many runs. What is about one asks for its `owner`, so that none of these is taken
-- for the primary key.
CREATE INDEX runs_queued ON runs (tenant, queued_at, response_id) WHERE state = 'queued';
CREATE INDEX runs_by_owner ON runs (owner) WHERE state = 'running';
CREATE INDEX runs_cancelled ON runs (owner) WHERE cancel AND state = 'running';
CREATE INDEX runs_background ON runs (tenant) WHERE background AND state = 'running';

-- The events of streamed responses: whole SSE frames, numbered `first` to `last`.
CREATE TABLE events (
    tenant      text   NOT NULL,
    response_id text   NOT NULL,
    first       bigint NOT NULL,
    last        bigint NOT NULL,
    frames      bytea  NOT NULL,
    PRIMARY KEY (tenant, response_id, first)
);

-- Which response a client's Idempotency-Key belongs to, with the digest of its request.
CREATE TABLE idempotency (
    tenant      text  NOT NULL,
    key         text  NOT NULL,
    digest      bytea NOT NULL,
    response_id text  NOT NULL,
    PRIMARY KEY (tenant, key)
);

ALTER TABLE responses
    ADD COLUMN streamed        boolean NOT NULL DEFAULT false,  -- whether it has events
    ADD COLUMN expires_at      timestamptz,                     -- NULL: kept for ever
    ADD COLUMN idempotency_key text,
    ADD COLUMN acceptance      bigint NOT NULL DEFAULT 0,       -- tells an accept from its repetition
    ADD COLUMN finished_by     bigint;                          -- the token that finished it

INSERT INTO runs (tenant, response_id, state, background, attempts, token, owner, expires, queued_at, work)
SELECT
    tenant, id, 'running', false, attempts, lease_token,
    coalesce(lease_owner, 'unknown'), coalesce(lease_expires, clock_timestamp()), created_at, ''
FROM responses
WHERE output_end IS NULL;

UPDATE responses SET finished_by = lease_token WHERE output_end IS NOT NULL;

ALTER TABLE responses
    DROP COLUMN lease_owner,
    DROP COLUMN lease_expires,
    DROP COLUMN lease_token,
    DROP COLUMN attempts;

CREATE INDEX responses_expiring ON responses (expires_at)
    WHERE expires_at IS NOT NULL AND output_end IS NOT NULL;

-- What hangs on a thread: it is removed when nothing does. By hash, so that no plan for a response takes
-- these indexes for the tenant alone.
CREATE INDEX responses_by_thread ON responses USING hash (thread_id);
CREATE INDEX threads_by_parent ON threads USING hash (parent_id);

-- The second wall. Whoever we are, and though we own the tables: a row is seen and written only by a
-- transaction that named its tenant.
GRANT SELECT, INSERT, UPDATE, DELETE
    ON threads, items, responses, runs, events, idempotency TO holdfast_app;

ALTER TABLE threads ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
ALTER TABLE items ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
ALTER TABLE responses ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
ALTER TABLE runs ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
ALTER TABLE events ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
ALTER TABLE idempotency ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;

-- An empty setting is one that was set by an earlier transaction of the connection, and is no tenant.
CREATE POLICY own_rows ON threads
    USING (tenant = nullif(current_setting('holdfast.tenant', true), ''));
CREATE POLICY own_rows ON items
    USING (tenant = nullif(current_setting('holdfast.tenant', true), ''));
CREATE POLICY own_rows ON responses
    USING (tenant = nullif(current_setting('holdfast.tenant', true), ''));
CREATE POLICY own_rows ON runs
    USING (tenant = nullif(current_setting('holdfast.tenant', true), ''));
CREATE POLICY own_rows ON events
    USING (tenant = nullif(current_setting('holdfast.tenant', true), ''));
CREATE POLICY own_rows ON idempotency
    USING (tenant = nullif(current_setting('holdfast.tenant', true), ''));

-- The gates in the wall: the functions below, which run as the owner of the tables. The owner sees the
-- runs of all tenants, and may look for responses whose time has come; nothing else.
CREATE POLICY runs_of_all ON runs TO CURRENT_USER USING (true);
CREATE POLICY look_at_all ON responses FOR SELECT TO CURRENT_USER USING (true);

CREATE TYPE holdfast_run AS (
    tenant text, response_id text, token bigint, attempts integer, background boolean,
    streamed boolean, cancel boolean, fresh boolean, head bytea, work bytea
);

-- Hands one run, which the caller has locked, to a worker. No gate: it sees what its caller sees.
CREATE FUNCTION holdfast_take(
    run_tenant text, run_id text, worker text, lease_seconds double precision
) RETURNS SETOF holdfast_run LANGUAGE plpgsql VOLATILE AS $$
BEGIN
    PERFORM set_config('holdfast.tenant', run_tenant, true);
    RETURN QUERY
    WITH before AS (
        SELECT r.state = 'queued' AS fresh
        FROM runs r
        WHERE r.tenant = run_tenant AND r.response_id = run_id
    ), taken AS (
        UPDATE runs r
        SET state = 'running', owner = worker, token = r.token + 1, attempts = r.attempts + 1,
            expires = clock_timestamp() + make_interval(secs => lease_seconds)
        WHERE r.tenant = run_tenant AND r.response_id = run_id
        RETURNING r.token, r.attempts, r.background, r.cancel, r.work
    ), begun AS (
        UPDATE responses r
        SET status = 'in_progress'
        WHERE r.tenant = run_tenant AND r.id = run_id AND r.status = 'queued'
    )
    SELECT
        run_tenant, run_id, t.token, t.attempts, t.background, r.streamed, t.cancel, b.fresh,
        r.head, t.work
    FROM taken t
    CROSS JOIN before b
    CROSS JOIN responses r
    WHERE r.tenant = run_tenant AND r.id = run_id;
END $$;

-- Hands out runs whose lease ran out, and queued ones. What another claim has locked is passed over:
-- for this, a few more are looked at than are wanted.
CREATE FUNCTION holdfast_claim(
    worker text, lease_seconds double precision, queued integer, expired integer
) RETURNS SETOF holdfast_run LANGUAGE plpgsql VOLATILE SECURITY DEFINER AS $$
DECLARE
    next_one record;
    wanted integer := queued;
BEGIN
    FOR next_one IN
        SELECT r.tenant, r.response_id
        FROM runs r
        WHERE r.state = 'running' AND r.expires <= clock_timestamp()
        ORDER BY r.expires
        LIMIT expired
        FOR UPDATE SKIP LOCKED
    LOOP
        RETURN QUERY SELECT * FROM holdfast_take(
            next_one.tenant, next_one.response_id, worker, lease_seconds
        );
    END LOOP;
    IF wanted <= 0 THEN
        RETURN;
    END IF;
    FOR next_one IN
        -- Step from tenant to tenant through the index, look at the oldest of each, and give each as
        -- its place in the line the number of runs that its tenant would then have.
        WITH RECURSIVE waiting (tenant) AS (
            SELECT (SELECT r.tenant FROM runs r WHERE r.state = 'queued' ORDER BY r.tenant LIMIT 1)
            UNION ALL
            SELECT (
                SELECT r.tenant
                FROM runs r
                WHERE r.state = 'queued' AND r.tenant > w.tenant
                ORDER BY r.tenant
                LIMIT 1
            )
            FROM waiting w
            WHERE w.tenant IS NOT NULL
        ), busy AS (
            SELECT w.tenant, (
                SELECT count(*)
                FROM runs r
                WHERE r.tenant = w.tenant AND r.background AND r.state = 'running'
            ) AS running
            FROM waiting w
            WHERE w.tenant IS NOT NULL
            OFFSET 0  -- counted once for each tenant
        ), line AS (
            SELECT
                b.tenant, q.response_id, q.queued_at,
                b.running
                + row_number() OVER (PARTITION BY b.tenant ORDER BY q.queued_at, q.response_id)
                AS place
            FROM busy b
            CROSS JOIN LATERAL (
                SELECT r.response_id, r.queued_at
                FROM runs r
                WHERE r.tenant = b.tenant AND r.state = 'queued'
                ORDER BY r.queued_at, r.response_id
                LIMIT queued + 16
            ) q
        )
        SELECT l.tenant, l.response_id FROM line l ORDER BY l.place, l.queued_at LIMIT queued + 16
    LOOP
        PERFORM FROM runs r
        WHERE r.tenant = next_one.tenant AND r.response_id = next_one.response_id
            AND r.owner IS NULL
        FOR UPDATE SKIP LOCKED;
        CONTINUE WHEN NOT FOUND;
        RETURN QUERY SELECT * FROM holdfast_take(
            next_one.tenant, next_one.response_id, worker, lease_seconds
        );
        wanted := wanted - 1;
        EXIT WHEN wanted = 0;
    END LOOP;
END $$;

-- Hands out what other lives of a worker left: `name` is what all of them are called before a '#'
-- ('$' is the next character).
CREATE FUNCTION holdfast_inherit(
    name text, worker text, lease_seconds double precision, at_most integer
) RETURNS SETOF holdfast_run LANGUAGE plpgsql VOLATILE SECURITY DEFINER AS $$
DECLARE
    next_one record;
BEGIN
    FOR next_one IN
        SELECT r.tenant, r.response_id
        FROM runs r
        WHERE r.state = 'running' AND r.owner <> worker
            AND (r.owner = name OR (r.owner >= name || '#' AND r.owner < name || '$'))
        LIMIT at_most
        FOR UPDATE SKIP LOCKED
    LOOP
        RETURN QUERY SELECT * FROM holdfast_take(
            next_one.tenant, next_one.response_id, worker, lease_seconds
        );
    END LOOP;
END $$;

-- Prolongs leases and returns the places, from 1, of those that are still good. In the order in which
-- every transaction that locks several runs does it.
CREATE FUNCTION holdfast_renew(
    tenants text[], ids text[], tokens bigint[], lease_seconds double precision
) RETURNS SETOF bigint LANGUAGE plpgsql VOLATILE SECURITY DEFINER AS $$
DECLARE
    lease record;
BEGIN
    FOR lease IN
        SELECT l.tenant, l.id, l.token, l.number
        FROM unnest(tenants, ids, tokens) WITH ORDINALITY AS l (tenant, id, token, number)
        ORDER BY l.tenant COLLATE "C", l.id COLLATE "C"
    LOOP
        UPDATE runs r
        SET expires = clock_timestamp() + make_interval(secs => lease_seconds)
        WHERE r.tenant = lease.tenant AND r.response_id = lease.id
            AND r.token = lease.token AND r.owner IS NOT NULL;
        IF FOUND THEN
            RETURN NEXT lease.number;
        END IF;
    END LOOP;
END $$;

-- The leases of a worker whose end was asked for.
CREATE FUNCTION holdfast_cancelled(worker text)
RETURNS TABLE (run_tenant text, run_id text, run_token bigint)
LANGUAGE sql STABLE SECURITY DEFINER AS $$
    SELECT r.tenant, r.response_id, r.token
    FROM runs r
    WHERE r.owner = worker AND r.cancel AND r.state = 'running'
$$;

-- Which responses may be removed by now; only their names.
CREATE FUNCTION holdfast_expired(at_most integer)
RETURNS TABLE (response_tenant text, response_id text)
LANGUAGE sql STABLE SECURITY DEFINER AS $$
    SELECT r.tenant, r.id
    FROM responses r
    WHERE r.expires_at <= clock_timestamp() AND r.output_end IS NOT NULL
    ORDER BY r.expires_at
    LIMIT at_most
$$;

-- Nobody but the application calls them, and they look nowhere but in this schema.
DO $$
DECLARE
    gate regprocedure;
BEGIN
    EXECUTE format('GRANT USAGE ON SCHEMA %I TO holdfast_app', current_schema());
    FOR gate IN
        SELECT p.oid
        FROM pg_proc p
        WHERE p.pronamespace = current_schema()::regnamespace AND p.proname LIKE 'holdfast\_%'
    LOOP
        EXECUTE format(
            'ALTER FUNCTION %s SET search_path = pg_catalog, %I, pg_temp', gate, current_schema()
        );
        EXECUTE format('REVOKE ALL ON FUNCTION %s FROM PUBLIC', gate);
        EXECUTE format('GRANT EXECUTE ON FUNCTION %s TO holdfast_app', gate);
    END LOOP;
END $$;
