-- Conversations: names for places in threads (docs/adr/0016).

-- The items are all that precedes (thread_id, position) and was not dropped. `change` is what brought it
-- there: the id of the response whose turn it is or was, or of an addition. While that response has a run, the
-- conversation is taken; nothing has to be freed when a worker dies.
CREATE TABLE conversations (
    tenant     text        NOT NULL,
    id         text        NOT NULL,
    thread_id  text        NOT NULL,
    position   bigint      NOT NULL,
    change     text        NOT NULL,
    metadata   bytea       NOT NULL,  -- JSON
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (tenant, id)
) WITH (fillfactor = 70);  -- updated twice a turn, in place

CREATE INDEX conversations_by_creation ON conversations (tenant, created_at, id);

-- What keeps a thread, as the other two. By hash, so that no plan takes it for the tenant alone.
CREATE INDEX conversations_by_thread ON conversations USING hash (thread_id);

-- Taken out of its conversation: only the response that it came with still shows it.
ALTER TABLE items ADD COLUMN dropped boolean NOT NULL DEFAULT false;

-- The conversation that a response is a turn of; NULL again if it ended without joining it.
ALTER TABLE responses ADD COLUMN conversation_id text;

GRANT SELECT, INSERT, UPDATE, DELETE ON conversations TO holdfast_app;
ALTER TABLE conversations ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE POLICY own_rows ON conversations
    USING (tenant = nullif(current_setting('holdfast.tenant', true), ''));
