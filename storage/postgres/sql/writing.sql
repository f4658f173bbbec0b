-- What is written while a response is made. Each statement is whole by itself, names the tenant and goes by
-- key. Where it may not write, it returns no row instead of failing: it shares its transaction with others.
--
-- Locks are taken in one order: runs, responses, threads, conversations; of several, by tenant and id. An
-- accept comes after all of these. It waits for nobody that waits: not for a thread that somebody else is
-- about to continue (it branches then), not for a conversation (it is refused), and for an Idempotency-Key
-- only in the order of keys. For a request for consent it waits, in the order of ids; in a group not for long.

-- name: accept
-- Claims the tip of the thread or branches it, writes input, response, run and first events; returns
-- the lease token. No row if the Idempotency-Key is taken, the thread to continue is gone, the
-- conversation is not where it was seen, or one of its answers is to a request for consent whose answer
-- was taken.
WITH held AS (
    SELECT id
    FROM conversations
    WHERE tenant = %(tenant)s AND id = %(conversation)s AND thread_id = %(after_thread)s
      AND position = %(after_position)s AND change = %(seen)s
    FOR NO KEY UPDATE SKIP LOCKED
), parent AS (
    SELECT id, root_id
    FROM threads
    WHERE tenant = %(tenant)s AND id = %(after_thread)s
    FOR KEY SHARE  -- nobody removes it before our branch is there
), asked AS (
    SELECT id, answered_by
    FROM approvals
    WHERE tenant = %(tenant)s AND id = ANY (%(answers)b::text[])
    ORDER BY id
    FOR UPDATE  -- whoever comes second sees what the first has done
), keyed AS (
    INSERT INTO idempotency (tenant, key, digest, response_id)
    SELECT %(tenant)s, %(key)s, %(digest)b, %(id)s
    WHERE %(key)s::text IS NOT NULL
      AND (%(after_thread)s::text IS NULL OR EXISTS (SELECT FROM parent))
      AND NOT EXISTS (SELECT FROM asked WHERE answered_by IS NOT NULL)
      AND (%(conversation)s::text IS NULL OR EXISTS (SELECT FROM held))
    ON CONFLICT DO NOTHING
    RETURNING key
), welcome AS (
    SELECT (SELECT root_id FROM parent) AS root_id
    WHERE (%(after_thread)s::text IS NULL OR EXISTS (SELECT FROM parent))
      AND (%(conversation)s::text IS NULL OR EXISTS (SELECT FROM held))
      AND (%(key)s::text IS NULL OR EXISTS (SELECT FROM keyed))
      AND NOT EXISTS (SELECT FROM asked WHERE answered_by IS NOT NULL)
), answered AS (
    UPDATE approvals
    SET answered_by = %(id)s
    WHERE tenant = %(tenant)s AND id = ANY (%(answers)b::text[]) AND EXISTS (SELECT FROM welcome)
), noted AS (
    INSERT INTO approvals (tenant, id, response_id, answered_by)
    SELECT %(tenant)s, a.id, %(id)s, %(id)s
    FROM welcome w
    CROSS JOIN unnest(%(answers)b::text[]) AS a (id)
    WHERE NOT EXISTS (SELECT FROM asked WHERE asked.id = a.id)
), turned AS (
    UPDATE conversations
    SET change = %(id)s
    WHERE tenant = %(tenant)s AND id = (SELECT id FROM held) AND EXISTS (SELECT FROM welcome)
), free AS (
    SELECT id
    FROM threads
    WHERE tenant = %(tenant)s AND id = %(after_thread)s AND tip = %(after_position)s
      AND writer IS NULL AND EXISTS (SELECT FROM welcome)
    FOR NO KEY UPDATE SKIP LOCKED
), claimed AS (
    UPDATE threads
    SET writer = %(id)s, length = length + %(count)s
    WHERE tenant = %(tenant)s AND id = (SELECT id FROM free)
    RETURNING id, length - %(count)s AS start
), branched AS (
    INSERT INTO threads (tenant, id, root_id, parent_id, parent_length, tip, writer, length)
    SELECT
        %(tenant)s, %(new_thread)s, coalesce(w.root_id, %(new_root)s, %(new_thread)s),
        %(after_thread)s, %(after_position)s,
        coalesce(%(after_position)s, 0), %(id)s, coalesce(%(after_position)s, 0) + %(count)s
    FROM welcome w
    WHERE NOT EXISTS (SELECT FROM claimed)
    RETURNING id, length - %(count)s AS start
), place AS (
    SELECT id, start FROM claimed UNION ALL SELECT id, start FROM branched
), written AS (
    INSERT INTO items (
        tenant, thread_id, position, id, response_id, side, type, call_id, item, replay
    )
    SELECT
        %(tenant)s, p.id, p.start + i.number - 1, i.id, %(id)s, 'input',
        i.type, i.call_id, i.item, i.replay
    FROM place p
    CROSS JOIN unnest(
        %(item_ids)b::text[], %(types)b::text[], %(call_ids)b::text[],
        %(items)b::bytea[], %(replays)b::bytea[]
    ) WITH ORDINALITY AS i (id, type, call_id, item, replay, number)
), waiting AS (
    INSERT INTO runs (
        tenant, response_id, state, background, attempts, token, owner, expires, work
    )
    SELECT
        %(tenant)s, %(id)s, %(state)s, %(background)s, %(token)s, %(token)s, %(owner)s,
        clock_timestamp() + make_interval(secs => %(lease_seconds)s), %(work)b
    FROM place
), logged AS (
    INSERT INTO events (tenant, response_id, first, last, frames)
    SELECT %(tenant)s, %(id)s, %(first)s, %(last)s, %(frames)b
    FROM place
    WHERE %(first)s::bigint IS NOT NULL
)
INSERT INTO responses (
    tenant, id, thread_id, input_start, output_start, status, model, previous_response_id,
    conversation_id, head, streamed, idempotency_key, acceptance, expires_at
)
SELECT
    %(tenant)s, %(id)s, p.id, p.start, p.start + %(count)s, %(status)s, %(model)s, %(previous)s,
    %(conversation)s, %(head)b, %(streamed)s, %(key)s, %(acceptance)s,
    clock_timestamp() + make_interval(secs => %(keep_seconds)s)
FROM place p
RETURNING id;

-- name: accepted_before
-- Whether this very accept wrote the response: for one whose answer was lost.
SELECT id
FROM responses
WHERE tenant = %(tenant)s AND id = %(id)s AND acceptance = %(acceptance)s;

-- name: key_taken
-- Whose an Idempotency-Key is.
SELECT response_id, digest
FROM idempotency
WHERE tenant = %(tenant)s AND key = %(key)s;

-- name: finish
-- Completes a response whose lease is still good, writes its output after its input and the end of its
-- log, ends its run, frees the tip, and moves its conversation on if it joins that; returns one row if it
-- did.
WITH held AS (
    DELETE FROM runs
    WHERE tenant = %(tenant)s AND response_id = %(id)s AND token = %(token)s AND owner IS NOT NULL
    RETURNING token
), finished AS (
    UPDATE responses
    SET status = %(status)s, head = %(head)b, output_end = output_start + %(count)s,
        completed_at = clock_timestamp(), finished_by = %(token)s,
        conversation_id = CASE WHEN %(joins)s THEN conversation_id END
    WHERE tenant = %(tenant)s AND id = %(id)s AND output_end IS NULL AND EXISTS (SELECT FROM held)
    RETURNING thread_id, output_start, conversation_id
), advanced AS (
    UPDATE threads
    SET tip = length + %(count)s, length = length + %(count)s, writer = NULL
    WHERE tenant = %(tenant)s AND id = (SELECT thread_id FROM finished)
), moved AS (
    UPDATE conversations
    SET thread_id = (SELECT thread_id FROM finished),
        position = (SELECT output_start FROM finished) + %(count)s
    WHERE tenant = %(tenant)s AND id = (SELECT conversation_id FROM finished) AND change = %(id)s
), written AS (
    INSERT INTO items (
        tenant, thread_id, position, id, response_id, side, type, call_id, item, replay
    )
    SELECT
        %(tenant)s, f.thread_id, f.output_start + i.number - 1, i.id, %(id)s, 'output',
        i.type, i.call_id, i.item, i.replay
    FROM finished f
    CROSS JOIN unnest(
        %(item_ids)b::text[], %(types)b::text[], %(call_ids)b::text[],
        %(items)b::bytea[], %(replays)b::bytea[]
    ) WITH ORDINALITY AS i (id, type, call_id, item, replay, number)
), logged AS (
    INSERT INTO events (tenant, response_id, first, last, frames)
    SELECT %(tenant)s, %(id)s, %(first)s, %(last)s, %(frames)b
    FROM finished
    WHERE %(first)s::bigint IS NOT NULL
    ON CONFLICT (tenant, response_id, first) DO UPDATE
    SET last = excluded.last, frames = excluded.frames
    WHERE events.last < excluded.last
), asked AS (
    INSERT INTO approvals (tenant, id, response_id, request)
    SELECT %(tenant)s, a.id, %(id)s, a.request
    FROM finished
    CROSS JOIN unnest(%(asked_ids)b::text[], %(asked)b::bytea[]) AS a (id, request)
    ON CONFLICT DO NOTHING
)
SELECT thread_id FROM finished;

-- name: finished_before
-- Whether this very lease finished the response: for a finish whose answer was lost.
SELECT id
FROM responses
WHERE tenant = %(tenant)s AND id = %(id)s AND finished_by = %(token)s;

-- name: append
-- Adds events to the log of a response whose lease is still good; returns one row if it is. The lease
-- is held until they are committed: whoever takes it over has seen them. A batch that begins where one
-- is already, because its answer was lost, takes its place if it reaches further.
WITH held AS (
    SELECT token
    FROM runs
    WHERE tenant = %(tenant)s AND response_id = %(id)s AND token = %(token)s AND owner IS NOT NULL
    FOR SHARE
), logged AS (
    INSERT INTO events (tenant, response_id, first, last, frames)
    SELECT %(tenant)s, %(id)s, %(first)s, %(last)s, %(frames)b
    FROM held
    ON CONFLICT (tenant, response_id, first) DO UPDATE
    SET last = excluded.last, frames = excluded.frames
    WHERE events.last < excluded.last
)
SELECT token FROM held;
