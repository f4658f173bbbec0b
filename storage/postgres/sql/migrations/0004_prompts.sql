-- Prompt templates: what the versions share, and the versions, which are never changed.
--
-- Expands: an older release does not know these tables.

CREATE TABLE prompts (
    tenant          text        NOT NULL,
    id              text        NOT NULL,
    created_at      timestamptz NOT NULL DEFAULT clock_timestamp(),
    default_version bigint      NOT NULL DEFAULT 1,
    last_version    bigint      NOT NULL DEFAULT 1,
    head            bytea       NOT NULL,
    PRIMARY KEY (tenant, id)
);

CREATE INDEX prompts_by_creation ON prompts (tenant, created_at, id);

CREATE TABLE prompt_versions (
    tenant     text        NOT NULL,
    prompt_id  text        NOT NULL,
    version    bigint      NOT NULL,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    nonce      bytea       NOT NULL,  -- what was written under it is not written again
    body       bytea       NOT NULL,
    PRIMARY KEY (tenant, prompt_id, version)
);

CREATE UNIQUE INDEX prompt_versions_by_nonce ON prompt_versions (tenant, prompt_id, nonce);

GRANT SELECT, INSERT, UPDATE, DELETE ON prompts, prompt_versions TO holdfast_app;

ALTER TABLE prompts ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
ALTER TABLE prompt_versions ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;

CREATE POLICY own_rows ON prompts
    USING (tenant = nullif(current_setting('holdfast.tenant', true), ''));
CREATE POLICY own_rows ON prompt_versions
    USING (tenant = nullif(current_setting('holdfast.tenant', true), ''));
