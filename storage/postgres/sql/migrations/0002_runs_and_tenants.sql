-- Runs, event logs, idempotency keys and retention; and row-level security as the second wall.
--
-- What is not finished has a row in `runs`, which is small and hot; `responses` keeps what is there for
-- good. The lease columns of 0001 move there.

CREATE TABLE runs (
    tenant        text        NOT NULL,
    response_id   text        NOT NULL,
    owner         text,                  -- the worker that runs it, NULL while it is queued
    lease_expires timestamptz,           -- NULL while it is queued
    token         bigint      NOT NULL,  -- counts the owners; a lower token is fenced off
    attempts      integer     NOT NULL,
    background    boolean     NOT NULL,
    cancel        boolean     NOT NULL DEFAULT false,
    queued_at     timestamptz NOT NULL DEFAULT clock_timestamp(),
    work          bytea       NOT NULL,  -- what another worker needs to run it again
    PRIMARY KEY (tenant, response_id)
) WITH (fillfactor = 70);  -- renewed in place

-- Partial indexes that no plan for one run takes for the tenant alone.
CREATE INDEX runs_queued ON runs (tenant, queued_at) WHERE owner IS NULL;
CREATE INDEX runs_running ON runs (tenant, response_id) WHERE owner IS NOT NULL;
CREATE INDEX runs_by_expiry ON runs (lease_expires) WHERE owner IS NOT NULL;
CREATE INDEX runs_by_owner ON runs (owner) WHERE owner IS NOT NULL;

-- The stream of a response as it was sent: a row for each batch, never changed.
CREATE TABLE events (
    tenant       text   NOT NULL,
    response_id  text   NOT NULL,
    first_number bigint NOT NULL,
    last_number  bigint NOT NULL,
    frames       bytea  NOT NULL,
    PRIMARY KEY (tenant, response_id, first_number)
);

CREATE TABLE idempotency_keys (
    tenant      text  NOT NULL,
    key         text  NOT NULL,
    response_id text  NOT NULL,
    digest      bytea NOT NULL,  -- of the request that came with the key
    PRIMARY KEY (tenant, key)
);

ALTER TABLE responses
    ADD COLUMN streamed        boolean NOT NULL DEFAULT false,  -- has an event log
    ADD COLUMN idempotency_key text,
    ADD COLUMN finished_token  bigint,       -- of the lease that finished it
    ADD COLUMN expires_at      timestamptz;  -- NULL is kept for ever

CREATE INDEX responses_by_expiry ON responses (expires_at) WHERE expires_at IS NOT NULL;
-- Hashes, so that no plan takes these indexes for the tenant alone. Ids of threads are ours and random.
CREATE INDEX responses_by_thread ON responses USING hash (thread_id);
CREATE INDEX threads_by_parent ON threads USING hash (parent_id) WHERE parent_id IS NOT NULL;

INSERT INTO runs (tenant, response_id, owner, lease_expires, token, attempts, background, work)
SELECT
    tenant, id, coalesce(lease_owner, 'unknown'), coalesce(lease_expires, clock_timestamp()),
    lease_token, attempts, false, ''
FROM responses
WHERE output_end IS NULL;

UPDATE responses SET finished_token = lease_token WHERE output_end IS NOT NULL;

ALTER TABLE responses
    DROP COLUMN lease_owner,
    DROP COLUMN lease_expires,
    DROP COLUMN lease_token,
    DROP COLUMN attempts;

-- The role under which workers work: it owns nothing and cannot pass by the policies. Roles belong to
-- the whole server, so it may be there already.
DO $$
BEGIN
    IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'holdfast_app') THEN
        BEGIN
            CREATE ROLE holdfast_app NOLOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE NOBYPASSRLS;
        EXCEPTION
            WHEN duplicate_object OR unique_violation THEN NULL;
            WHEN insufficient_privilege THEN
                RAISE EXCEPTION
                    'the role holdfast_app is missing and % may not create roles; have an administrator '
                    'run: CREATE ROLE holdfast_app NOLOGIN; GRANT holdfast_app TO %;',
                    quote_ident(current_user), quote_ident(current_user);
        END;
    END IF;
    IF (SELECT rolsuper OR rolbypassrls FROM pg_roles WHERE rolname = 'holdfast_app') THEN
        RAISE EXCEPTION 'the role holdfast_app must be neither superuser nor BYPASSRLS';
    END IF;
    IF NOT pg_has_role(current_user, 'holdfast_app', 'MEMBER') THEN
        BEGIN
            EXECUTE format('GRANT holdfast_app TO %I', current_user);
        EXCEPTION WHEN insufficient_privilege THEN
            RAISE EXCEPTION
                '% is not a member of holdfast_app; have an administrator run: GRANT holdfast_app TO %;',
                quote_ident(current_user), quote_ident(current_user);
        END;
    END IF;
    EXECUTE format('GRANT USAGE ON SCHEMA %I TO holdfast_app', current_schema());
END
$$;

GRANT SELECT, INSERT, UPDATE, DELETE
    ON threads, items, responses, runs, events, idempotency_keys TO holdfast_app;

ALTER TABLE threads ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
ALTER TABLE items ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
ALTER TABLE responses ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
ALTER TABLE runs ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
ALTER TABLE events ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
ALTER TABLE idempotency_keys ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;

-- Without a tenant set, current_setting is NULL or empty, and no row is seen or written.
CREATE POLICY own ON threads USING (tenant = current_setting('holdfast.tenant', true));
CREATE POLICY own ON items USING (tenant = current_setting('holdfast.tenant', true));
CREATE POLICY own ON responses USING (tenant = current_setting('holdfast.tenant', true));
CREATE POLICY own ON runs USING (tenant = current_setting('holdfast.tenant', true));
CREATE POLICY own ON events USING (tenant = current_setting('holdfast.tenant', true));
CREATE POLICY own ON idempotency_keys USING (tenant = current_setting('holdfast.tenant', true));

-- Leases, the queue and retention belong to no tenant: their few statements say so (sql/sweeps.sql),
-- and see runs, and of responses that they are there.
CREATE POLICY sweeps ON runs USING (current_setting('holdfast.sweeps', true) = 'on');
CREATE POLICY sweeps ON responses FOR SELECT
    USING (current_setting('holdfast.sweeps', true) = 'on');
