-- Threads, their items, and responses.
--
-- Every key starts with the tenant, which is also the distribution column for Citus and its like:
-- there are no sequences and no foreign keys that reach over tenants. Payloads are bytea and never
-- jsonb: the API's strings may hold \u0000, and nothing here looks inside them.

-- An append-only list of items. Positions are absolute: a branch's own positions start at or after
-- parent_length, and everything of its parent (and of its ancestors) before parent_length precedes it.
CREATE TABLE threads (
    tenant        text        NOT NULL,
    id            text        NOT NULL,
    root_id       text        NOT NULL,  -- the oldest ancestor, or this thread
    parent_id     text,
    parent_length bigint,
    tip           bigint      NOT NULL,  -- where a continuation may take over ...
    writer        text,                  -- ... unless this unfinished response is writing there
    length        bigint      NOT NULL,  -- the next free position; no position is ever used twice
    created_at    timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (tenant, id)
) WITH (fillfactor = 70);  -- updated twice a turn, in place

-- Each item once, however many responses have it in their history.
CREATE TABLE items (
    tenant      text        NOT NULL,
    thread_id   text        NOT NULL,
    position    bigint      NOT NULL,
    id          text        NOT NULL,
    response_id text        NOT NULL,
    side        text        NOT NULL CHECK (side IN ('input', 'output')),
    type        text        NOT NULL,
    call_id     text,
    item        bytea       NOT NULL,  -- JSON, as the API shows it
    replay      bytea,                 -- JSON, as a later turn sends it to the model
    created_at  timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (tenant, thread_id, position)
);

-- Item references: the newest item of an id. Clients may use an id as often as they like. The id comes
-- first so that no plan for a thread takes this index for the tenant alone.
CREATE INDEX items_by_id ON items (id, tenant, created_at);

-- The input is thread_id[input_start, output_start), the output is thread_id[output_start, output_end).
CREATE TABLE responses (
    tenant               text        NOT NULL,
    id                   text        NOT NULL,
    thread_id            text        NOT NULL,
    input_start          bigint      NOT NULL,
    output_start         bigint      NOT NULL,
    output_end           bigint,               -- NULL until it is finished
    status               text        NOT NULL,
    model                text        NOT NULL,
    previous_response_id text,
    head                 bytea       NOT NULL,  -- JSON, the response object without `output`
    created_at           timestamptz NOT NULL DEFAULT clock_timestamp(),
    completed_at         timestamptz,
    lease_owner          text,                 -- the worker that runs it, NULL when it is finished
    lease_expires        timestamptz,
    lease_token          bigint      NOT NULL,  -- counts the owners; a lower token is fenced off
    attempts             integer     NOT NULL,
    PRIMARY KEY (tenant, id)
) WITH (fillfactor = 70);  -- rewritten once, when it finishes

CREATE INDEX responses_by_creation ON responses (tenant, created_at, id);
