-- Connectors: MCP servers that a tenant has registered.

CREATE TABLE connectors (
    tenant     text        NOT NULL,
    id         text        NOT NULL,
    label      text        NOT NULL,
    fields     bytea       NOT NULL,  -- JSON, as the API shows it
    sealed     text,                  -- credentials, sealed with a key that is not in here
    revision   text        NOT NULL,  -- another after each change
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (tenant, id)
);

-- Their conditions always hold. Only the statements that are meant for an index repeat its condition, so that
-- none of the others takes it for the tenant alone.
CREATE UNIQUE INDEX connectors_by_label ON connectors (tenant, label) WHERE label > '';
CREATE INDEX connectors_by_creation ON connectors (tenant, created_at, id)
    WHERE created_at > '-infinity';

GRANT SELECT, INSERT, UPDATE, DELETE ON connectors TO holdfast_app;

ALTER TABLE connectors ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;

CREATE POLICY own_rows ON connectors
    USING (tenant = nullif(current_setting('holdfast.tenant', true), ''));
