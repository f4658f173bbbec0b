-- Vector stores, the files attached to them, their chunks, and the queue of ingestions (docs/adr/0020).
--
-- Expands: an older release does not know these tables. It would leave the attachments of files that it deletes.

-- `in_progress` to `usage_bytes` are sums over its attachments, changed with them. What was deleted and still
-- has attachments keeps its row, unseen, until the sweep has detached them.
CREATE TABLE vector_stores (
    tenant         text        NOT NULL,
    id             text        NOT NULL,
    created_at     timestamptz NOT NULL,
    name           text        NOT NULL,
    description    text,
    metadata       bytea       NOT NULL,
    expire_days    bigint,
    last_active_at timestamptz NOT NULL,
    expires_at     timestamptz,
    deleted        boolean     NOT NULL DEFAULT false,
    emptied        boolean     NOT NULL DEFAULT false,  -- its time came, and nothing is attached any more
    in_progress    bigint      NOT NULL DEFAULT 0,
    completed      bigint      NOT NULL DEFAULT 0,
    cancelled      bigint      NOT NULL DEFAULT 0,
    failed         bigint      NOT NULL DEFAULT 0,
    usage_bytes    bigint      NOT NULL DEFAULT 0,
    PRIMARY KEY (tenant, id)
) WITH (fillfactor = 50);  -- updated with each of its files, in place

-- Conditions that always hold: see 0003.
CREATE INDEX vector_stores_by_creation ON vector_stores (tenant, created_at, id)
    WHERE created_at > '-infinity';
CREATE INDEX vector_stores_ending ON vector_stores (expires_at)
    WHERE expires_at IS NOT NULL AND NOT emptied;

CREATE TABLE attachments (
    tenant        text        NOT NULL,
    id            text        NOT NULL,
    store         text        NOT NULL,
    file_id       text        NOT NULL,
    created_at    timestamptz NOT NULL,
    status        text        NOT NULL DEFAULT 'in_progress'
        CHECK (status IN ('in_progress', 'completed', 'cancelled', 'failed')),
    error_code    text,
    error         bytea,
    usage_bytes   bigint      NOT NULL DEFAULT 0,
    attributes    jsonb       NOT NULL,  -- for filters; NUL in it is refused before it comes here
    chunk_size    bigint      NOT NULL,
    chunk_overlap bigint      NOT NULL,
    batch         text,
    finished_by   bigint,                -- the token that ended its ingestion
    PRIMARY KEY (tenant, id)
) WITH (fillfactor = 70);

CREATE UNIQUE INDEX attachments_by_file ON attachments (tenant, file_id, store) WHERE file_id > '';
CREATE INDEX attachments_by_creation ON attachments (tenant, store, created_at, id)
    WHERE created_at > '-infinity';
CREATE INDEX attachments_by_batch ON attachments (tenant, batch, created_at, id)
    WHERE batch IS NOT NULL;

CREATE TABLE attachment_batches (
    tenant     text        NOT NULL,
    id         text        NOT NULL,
    store      text        NOT NULL,
    created_at timestamptz NOT NULL,
    cancelled  boolean     NOT NULL DEFAULT false,
    PRIMARY KEY (tenant, id)
);

CREATE INDEX attachment_batches_by_store ON attachment_batches (tenant, store) WHERE store > '';

CREATE TABLE chunks (
    tenant     text   NOT NULL,
    attachment text   NOT NULL,
    number     bigint NOT NULL,
    text       bytea  NOT NULL,  -- UTF-8; documents may hold NUL
    model      text,             -- whose vector it is
    vector     bytea,
    PRIMARY KEY (tenant, attachment, number)
);
ALTER TABLE chunks ALTER COLUMN vector SET STORAGE EXTERNAL;  -- floats do not get smaller

-- What is in progress: a small table, whose rows go when it is done. `owner` and `expires` are the lease.
CREATE TABLE ingestions (
    tenant     text        NOT NULL,
    attachment text        NOT NULL,
    owner      text COLLATE "C",
    expires    timestamptz,
    token      bigint      NOT NULL DEFAULT 0,  -- counts the owners; a lower token is fenced off
    attempts   integer     NOT NULL DEFAULT 0,
    not_before timestamptz NOT NULL,            -- its place in the queue too
    chunked    boolean     NOT NULL DEFAULT false,
    PRIMARY KEY (tenant, attachment),
    CHECK ((owner IS NULL) = (expires IS NULL))
) WITH (
    fillfactor = 50, autovacuum_vacuum_scale_factor = 0.0, autovacuum_vacuum_threshold = 1000
);

-- What is about one asks for `expires`, so that neither is taken for the primary key.
CREATE INDEX ingestions_waiting ON ingestions (tenant, not_before, attachment) WHERE owner IS NULL;
CREATE INDEX ingestions_at_work ON ingestions (tenant) WHERE owner IS NOT NULL;

-- Attachments whose chunks may still be in the index. While a lease lasts, its owner may be inserting.
CREATE TABLE removals (
    tenant     text        NOT NULL,
    attachment text        NOT NULL,
    store      text        NOT NULL,
    ready      timestamptz NOT NULL,
    PRIMARY KEY (tenant, attachment)
);

CREATE INDEX removals_ready ON removals (ready);

-- Attachments that are gone, or have failed or been cancelled, whose chunks are still there: nobody reads them,
-- and they are removed a lot at a time, because nobody can wait until a large file has been.
CREATE TABLE dropped_chunks (
    tenant     text        NOT NULL,
    attachment text        NOT NULL,
    dropped_at timestamptz NOT NULL,
    PRIMARY KEY (tenant, attachment)
);

CREATE INDEX dropped_chunks_by_time ON dropped_chunks (dropped_at);

GRANT SELECT, INSERT, UPDATE, DELETE
    ON vector_stores, attachments, attachment_batches, chunks, ingestions, removals, dropped_chunks
    TO holdfast_app;

ALTER TABLE vector_stores ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
ALTER TABLE attachments ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
ALTER TABLE attachment_batches ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
ALTER TABLE chunks ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
ALTER TABLE ingestions ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
ALTER TABLE removals ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
ALTER TABLE dropped_chunks ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;

CREATE POLICY own_rows ON vector_stores
    USING (tenant = nullif(current_setting('holdfast.tenant', true), ''));
CREATE POLICY own_rows ON attachments
    USING (tenant = nullif(current_setting('holdfast.tenant', true), ''));
CREATE POLICY own_rows ON attachment_batches
    USING (tenant = nullif(current_setting('holdfast.tenant', true), ''));
CREATE POLICY own_rows ON chunks
    USING (tenant = nullif(current_setting('holdfast.tenant', true), ''));
CREATE POLICY own_rows ON ingestions
    USING (tenant = nullif(current_setting('holdfast.tenant', true), ''));
CREATE POLICY own_rows ON removals
    USING (tenant = nullif(current_setting('holdfast.tenant', true), ''));
CREATE POLICY own_rows ON dropped_chunks
    USING (tenant = nullif(current_setting('holdfast.tenant', true), ''));

-- More gates (docs/adr/0007): the queue, and what is to be swept, removed from the index, or indexed again.
CREATE POLICY ingestions_of_all ON ingestions TO CURRENT_USER USING (true);
CREATE POLICY look_for_old ON vector_stores FOR SELECT TO CURRENT_USER
    USING (expires_at <= clock_timestamp() AND NOT emptied);
CREATE POLICY look_for_ready ON removals FOR SELECT TO CURRENT_USER USING (ready <= clock_timestamp());
CREATE POLICY look_for_dropped ON dropped_chunks FOR SELECT TO CURRENT_USER USING (true);
CREATE POLICY look_for_completed ON attachments FOR SELECT TO CURRENT_USER USING (status = 'completed');

CREATE TYPE holdfast_ingestion AS (
    tenant text, attachment text, token bigint, store text, file_id text, chunk_size bigint,
    chunk_overlap bigint, attempts integer, chunked boolean
);

-- Hands one ingestion, which the caller has locked, to a worker. No gate: it sees what its caller sees.
CREATE FUNCTION holdfast_take_ingestion(
    of_tenant text, of_attachment text, worker text, lease_seconds double precision
) RETURNS SETOF holdfast_ingestion LANGUAGE plpgsql VOLATILE AS $$
BEGIN
    PERFORM set_config('holdfast.tenant', of_tenant, true);
    RETURN QUERY
    WITH taken AS (
        UPDATE ingestions i
        SET owner = worker, token = i.token + 1, attempts = i.attempts + 1,
            expires = clock_timestamp() + make_interval(secs => lease_seconds)
        WHERE i.tenant = of_tenant AND i.attachment = of_attachment
        RETURNING i.token, i.attempts, i.chunked
    )
    SELECT
        of_tenant, of_attachment, t.token, a.store, a.file_id, a.chunk_size, a.chunk_overlap,
        t.attempts, t.chunked
    FROM taken t
    CROSS JOIN attachments a
    WHERE a.tenant = of_tenant AND a.id = of_attachment;
END $$;

-- Hands out ingestions whose lease ran out, then those that wait; as holdfast_claim in 0002.
CREATE FUNCTION holdfast_claim_ingestions(
    worker text, lease_seconds double precision, at_most integer
) RETURNS SETOF holdfast_ingestion LANGUAGE plpgsql VOLATILE SECURITY DEFINER AS $$
DECLARE
    next_one record;
    wanted integer := at_most;
BEGIN
    -- A long line that came at once is unknown to the statistics: it would be read whole and sorted.
    PERFORM set_config('enable_bitmapscan', 'off', true);
    FOR next_one IN
        SELECT i.tenant, i.attachment
        FROM ingestions i
        WHERE i.owner IS NOT NULL AND i.expires <= clock_timestamp()
        ORDER BY i.expires
        LIMIT at_most
        FOR UPDATE SKIP LOCKED
    LOOP
        RETURN QUERY SELECT * FROM holdfast_take_ingestion(
            next_one.tenant, next_one.attachment, worker, lease_seconds
        );
        wanted := wanted - 1;
    END LOOP;
    IF wanted <= 0 THEN
        RETURN;
    END IF;
    FOR next_one IN
        WITH RECURSIVE waiting (tenant) AS (
            SELECT (SELECT i.tenant FROM ingestions i WHERE i.owner IS NULL ORDER BY i.tenant LIMIT 1)
            UNION ALL
            SELECT (
                SELECT i.tenant
                FROM ingestions i
                WHERE i.owner IS NULL AND i.tenant > w.tenant
                ORDER BY i.tenant
                LIMIT 1
            )
            FROM waiting w
            WHERE w.tenant IS NOT NULL
        ), busy AS (
            SELECT w.tenant, (
                SELECT count(*)
                FROM ingestions i
                WHERE i.tenant = w.tenant AND i.owner IS NOT NULL
            ) AS at_work
            FROM waiting w
            WHERE w.tenant IS NOT NULL
            OFFSET 0  -- counted once for each tenant
        ), line AS (
            SELECT
                b.tenant, q.attachment, q.not_before,
                b.at_work
                + row_number() OVER (PARTITION BY b.tenant ORDER BY q.not_before, q.attachment)
                AS place
            FROM busy b
            CROSS JOIN LATERAL (
                SELECT i.attachment, i.not_before
                FROM ingestions i
                WHERE i.tenant = b.tenant AND i.owner IS NULL
                    AND i.not_before <= clock_timestamp()
                ORDER BY i.not_before, i.attachment
                LIMIT at_most + 16
            ) q
        )
        SELECT l.tenant, l.attachment
        FROM line l
        ORDER BY l.place, l.not_before, l.attachment
        LIMIT at_most + 16
    LOOP
        PERFORM FROM ingestions i
        WHERE i.tenant = next_one.tenant AND i.attachment = next_one.attachment
            AND i.expires IS NULL AND i.not_before <= clock_timestamp()
        FOR UPDATE SKIP LOCKED;
        CONTINUE WHEN NOT FOUND;
        RETURN QUERY SELECT * FROM holdfast_take_ingestion(
            next_one.tenant, next_one.attachment, worker, lease_seconds
        );
        wanted := wanted - 1;
        EXIT WHEN wanted = 0;
    END LOOP;
END $$;

-- Prolongs leases and returns the places, from 1, of those that are still good; as holdfast_renew in 0002.
CREATE FUNCTION holdfast_renew_ingestions(
    tenants text[], attachments text[], tokens bigint[], lease_seconds double precision
) RETURNS SETOF bigint LANGUAGE plpgsql VOLATILE SECURITY DEFINER AS $$
DECLARE
    lease record;
BEGIN
    FOR lease IN
        SELECT l.tenant, l.attachment, l.token, l.number
        FROM unnest(tenants, attachments, tokens)
            WITH ORDINALITY AS l (tenant, attachment, token, number)
        ORDER BY l.tenant COLLATE "C", l.attachment COLLATE "C"
    LOOP
        UPDATE ingestions i
        SET expires = clock_timestamp() + make_interval(secs => lease_seconds)
        WHERE i.tenant = lease.tenant AND i.attachment = lease.attachment
            AND i.token = lease.token AND i.expires IS NOT NULL;
        IF FOUND THEN
            RETURN NEXT lease.number;
        END IF;
    END LOOP;
END $$;

-- Stores whose files are to be detached; only their names.
CREATE FUNCTION holdfast_ended_stores(at_most integer)
RETURNS TABLE (store_tenant text, store_id text)
LANGUAGE sql STABLE SECURITY DEFINER AS $$
    SELECT s.tenant, s.id
    FROM vector_stores s
    WHERE s.expires_at <= clock_timestamp() AND NOT s.emptied
    ORDER BY s.expires_at
    LIMIT at_most
$$;

CREATE FUNCTION holdfast_removals(at_most integer)
RETURNS TABLE (of_tenant text, of_store text, of_attachment text)
LANGUAGE sql STABLE SECURITY DEFINER AS $$
    SELECT r.tenant, r.store, r.attachment
    FROM removals r
    WHERE r.ready <= clock_timestamp()
    ORDER BY r.ready
    LIMIT at_most
$$;

CREATE FUNCTION holdfast_dropped_chunks(at_most integer)
RETURNS TABLE (of_tenant text, of_attachment text)
LANGUAGE sql STABLE SECURITY DEFINER AS $$
    SELECT d.tenant, d.attachment
    FROM dropped_chunks d
    ORDER BY d.dropped_at
    LIMIT at_most
$$;

CREATE FUNCTION holdfast_completed_attachments(
    after_tenant text, after_attachment text, at_most integer
) RETURNS TABLE (of_tenant text, of_store text, of_attachment text)
LANGUAGE sql STABLE SECURITY DEFINER AS $$
    SELECT a.tenant, a.store, a.id
    FROM attachments a
    WHERE a.status = 'completed' AND (a.tenant, a.id) > (after_tenant, after_attachment)
    ORDER BY a.tenant, a.id
    LIMIT at_most
$$;

-- How many responses wait, and how many files are not ingested yet, over all tenants.
CREATE FUNCTION holdfast_waiting(OUT responses bigint, OUT files bigint)
LANGUAGE sql STABLE SECURITY DEFINER AS $$
    SELECT
        (SELECT count(*) FROM runs r WHERE r.state = 'queued'),
        (SELECT count(*) FROM ingestions i)
$$;

DO $$
DECLARE
    gate text;
BEGIN
    FOREACH gate IN ARRAY ARRAY[
        'holdfast_take_ingestion(text, text, text, double precision)',
        'holdfast_claim_ingestions(text, double precision, integer)',
        'holdfast_renew_ingestions(text[], text[], bigint[], double precision)',
        'holdfast_ended_stores(integer)',
        'holdfast_removals(integer)',
        'holdfast_dropped_chunks(integer)',
        'holdfast_completed_attachments(text, text, integer)',
        'holdfast_waiting()'
    ]
    LOOP
        EXECUTE format(
            'ALTER FUNCTION %s SET search_path = pg_catalog, %I, pg_temp', gate, current_schema()
        );
        EXECUTE format('REVOKE ALL ON FUNCTION %s FROM PUBLIC', gate);
        EXECUTE format('GRANT EXECUTE ON FUNCTION %s TO holdfast_app', gate);
    END LOOP;
END $$;
