-- Requests for consent to calls of tools, and which response took the answer (docs/adr/0010).

-- A row comes with the response that asks, or with the first answer where that response is not stored, and
-- goes with `response_id`. It is answered once.
CREATE TABLE approvals (
    tenant      text  NOT NULL,
    id          text  NOT NULL,
    response_id text  NOT NULL,
    request     bytea,           -- JSON: what the consent is for; NULL where only the answer is known
    answered_by text,            -- the response that took the answer, NULL while nobody has
    PRIMARY KEY (tenant, id)
);

-- By hash, so that no plan takes them for the tenant alone.
CREATE INDEX approvals_by_response ON approvals USING hash (response_id);
CREATE INDEX approvals_by_answer ON approvals USING hash (answered_by);

GRANT SELECT, INSERT, UPDATE, DELETE ON approvals TO holdfast_app;
ALTER TABLE approvals ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE POLICY own_rows ON approvals
    USING (tenant = nullif(current_setting('holdfast.tenant', true), ''));
