-- Files, uploads, and the blobs that hold their bytes.
--
-- Expands: an older release does not know these tables.

CREATE TABLE files (
    tenant     text        NOT NULL,
    id         text        NOT NULL,
    created_at timestamptz NOT NULL,
    expires_at timestamptz,             -- NULL: kept until it is deleted
    purpose    text        NOT NULL,
    filename   text        NOT NULL,
    bytes      bigint      NOT NULL,
    PRIMARY KEY (tenant, id)
);

-- Its condition always holds; see 0003.
CREATE INDEX files_by_creation ON files (tenant, created_at, id) WHERE created_at > '-infinity';
CREATE INDEX files_expiring ON files (expires_at) WHERE expires_at IS NOT NULL;

CREATE TABLE uploads (
    tenant       text        NOT NULL,
    id           text        NOT NULL,
    created_at   timestamptz NOT NULL,
    expires_at   timestamptz NOT NULL,
    status       text        NOT NULL DEFAULT 'pending'
        CHECK (status IN ('pending', 'completed', 'cancelled')),
    bytes        bigint      NOT NULL,
    purpose      text        NOT NULL,
    filename     text        NOT NULL,
    media_type   text        NOT NULL,
    keep_seconds bigint,                -- of the file that it becomes
    file_id      text,
    PRIMARY KEY (tenant, id)
);

CREATE INDEX uploads_expiring ON uploads (expires_at);

-- A row is there before the blob is, and goes after it. What nothing has taken until `drop_at` is removed.
CREATE TABLE blobs (
    tenant  text   NOT NULL,
    key     text   NOT NULL,
    holder  text   NOT NULL DEFAULT '',  -- id of a file or of an upload; '': announced
    number  bigint NOT NULL DEFAULT 0,   -- place in a file
    bytes   bigint NOT NULL DEFAULT 0,
    sha256  bytea  NOT NULL DEFAULT '',
    drop_at timestamptz,                 -- NULL: as long as its file
    PRIMARY KEY (tenant, key)
);

CREATE INDEX blobs_by_holder ON blobs (tenant, holder, number) WHERE holder > '';
CREATE INDEX blobs_dropping ON blobs (drop_at) WHERE drop_at IS NOT NULL;

GRANT SELECT, INSERT, UPDATE, DELETE ON files, uploads, blobs TO holdfast_app;

ALTER TABLE files ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
ALTER TABLE uploads ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
ALTER TABLE blobs ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;

CREATE POLICY own_rows ON files
    USING (tenant = nullif(current_setting('holdfast.tenant', true), ''));
CREATE POLICY own_rows ON uploads
    USING (tenant = nullif(current_setting('holdfast.tenant', true), ''));
CREATE POLICY own_rows ON blobs
    USING (tenant = nullif(current_setting('holdfast.tenant', true), ''));

-- Two more gates, for the sweep (docs/adr/0007): what has had its time is looked for, and only names of it.
CREATE POLICY look_for_old ON files FOR SELECT TO CURRENT_USER
    USING (expires_at <= clock_timestamp());
CREATE POLICY look_for_old ON uploads FOR SELECT TO CURRENT_USER
    USING (expires_at <= clock_timestamp() - interval '1 day');
CREATE POLICY look_for_old ON blobs FOR SELECT TO CURRENT_USER
    USING (drop_at <= clock_timestamp());

CREATE FUNCTION holdfast_dropped_blobs(at_most integer)
RETURNS TABLE (blob_tenant text, blob_key text)
LANGUAGE sql STABLE SECURITY DEFINER AS $$
    SELECT b.tenant, b.key
    FROM blobs b
    WHERE b.drop_at <= clock_timestamp()
    ORDER BY b.drop_at
    LIMIT at_most
$$;

CREATE FUNCTION holdfast_expired_files(at_most integer)
RETURNS TABLE (file_tenant text, file_id text)
LANGUAGE sql STABLE SECURITY DEFINER AS $$
    (SELECT f.tenant, f.id FROM files f WHERE f.expires_at <= clock_timestamp() LIMIT at_most)
    UNION ALL
    (
        SELECT u.tenant, u.id
        FROM uploads u
        WHERE u.expires_at <= clock_timestamp() - interval '1 day'
        LIMIT at_most
    )
$$;

DO $$
DECLARE
    gate text;
BEGIN
    FOREACH gate IN ARRAY ARRAY['holdfast_dropped_blobs(integer)', 'holdfast_expired_files(integer)']
    LOOP
        EXECUTE format(
            'ALTER FUNCTION %s SET search_path = pg_catalog, %I, pg_temp', gate, current_schema()
        );
        EXECUTE format('REVOKE ALL ON FUNCTION %s FROM PUBLIC', gate);
        EXECUTE format('GRANT EXECUTE ON FUNCTION %s TO holdfast_app', gate);
    END LOOP;
END $$;
