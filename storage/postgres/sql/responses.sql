-- Everything that `responses.py` asks. Each statement names the tenant, and each goes by key whatever
-- the planner believes of the tables: one row is looked up by a scalar subquery, several by a LATERAL
-- join with OFFSET 0, which the planner does not turn round.

-- name: load_context
-- The history that ends with a response: a row for each item in order, or one with type NULL.
WITH RECURSIVE response AS (
    SELECT status, thread_id, coalesce(output_end, output_start) AS until
    FROM responses
    WHERE tenant = %(tenant)s AND id = %(id)s
), chain AS (
    SELECT t.id, t.root_id, t.parent_id, t.parent_length, r.until
    FROM response r
    CROSS JOIN LATERAL (
        SELECT id, root_id, parent_id, parent_length
        FROM threads
        WHERE tenant = %(tenant)s AND id = r.thread_id
        OFFSET 0
    ) t
    UNION ALL
    SELECT p.id, p.root_id, p.parent_id, p.parent_length, least(c.until, c.parent_length)
    FROM chain c
    CROSS JOIN LATERAL (
        SELECT id, root_id, parent_id, parent_length
        FROM threads
        WHERE tenant = %(tenant)s AND id = c.parent_id
        OFFSET 0
    ) p
), history AS (
    SELECT i.position, i.type, i.call_id, i.replay, i.side = 'output' AS output
    FROM chain c
    CROSS JOIN LATERAL (
        SELECT position, type, call_id, replay, side
        FROM items
        WHERE tenant = %(tenant)s AND thread_id = c.id AND position < c.until
        OFFSET 0
    ) i
)
SELECT
    r.status, r.thread_id, r.until,
    (SELECT root_id FROM chain LIMIT 1),
    h.type, h.call_id, h.replay, h.output
FROM response r
LEFT JOIN history h ON true
ORDER BY h.position;

-- name: accept
-- Claims the tip of the thread or branches it, writes input, response, run and first events; returns
-- the lease token. Nothing is written, and no row returned, where id or Idempotency-Key are in use.
-- Of two that claim one tip, the second waits for the first, finds the tip gone, and branches.
WITH keyed AS (
    INSERT INTO idempotency_keys (tenant, key, response_id, digest)
    SELECT %(tenant)s, %(key)s, %(id)s, %(digest)b
    WHERE %(key)s::text IS NOT NULL
    ON CONFLICT DO NOTHING
    RETURNING key
), free AS (
    SELECT WHERE %(key)s::text IS NULL OR EXISTS (SELECT FROM keyed)
), claimed AS (
    UPDATE threads
    SET writer = %(id)s, length = length + %(count)s
    WHERE tenant = %(tenant)s AND id = %(after_thread)s AND tip = %(after_position)s
      AND writer IS NULL AND EXISTS (SELECT FROM free)
    RETURNING id, length - %(count)s AS start
), branched AS (
    INSERT INTO threads (tenant, id, root_id, parent_id, parent_length, tip, writer, length)
    SELECT
        %(tenant)s, %(new_thread)s,
        coalesce(
            (SELECT root_id FROM threads WHERE tenant = %(tenant)s AND id = %(after_thread)s),
            %(new_thread)s
        ),
        %(after_thread)s, %(after_position)s,
        coalesce(%(after_position)s, 0), %(id)s, coalesce(%(after_position)s, 0) + %(count)s
    WHERE NOT EXISTS (SELECT FROM claimed) AND EXISTS (SELECT FROM free)
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
), accepted AS (
    INSERT INTO responses (
        tenant, id, thread_id, input_start, output_start, status, model, previous_response_id, head,
        streamed, idempotency_key, expires_at
    )
    SELECT
        %(tenant)s, %(id)s, p.id, p.start, p.start + %(count)s, %(status)s, %(model)s,
        %(previous)s, %(head)b, %(streamed)s, %(key)s,
        clock_timestamp() + make_interval(secs => %(keep_seconds)s)
    FROM place p
    RETURNING id
), logged AS (
    INSERT INTO events (tenant, response_id, first_number, last_number, frames)
    SELECT %(tenant)s, id, %(first)s, %(last)s, %(frames)b
    FROM accepted
    WHERE %(first)s::bigint IS NOT NULL
)
INSERT INTO runs (
    tenant, response_id, owner, lease_expires, token, attempts, background, work
)
SELECT
    %(tenant)s, a.id, %(worker)s,
    clock_timestamp() + make_interval(secs => %(lease_seconds)s), %(token)s, %(token)s,
    %(background)s, %(work)b
FROM accepted a
RETURNING token;

-- name: accepted_before
-- The lease token of a response that this worker accepted: for an accept whose answer was lost.
SELECT %(token)s::bigint
FROM runs
WHERE tenant = %(tenant)s AND response_id = %(id)s AND coalesce(owner, '') = coalesce(%(worker)s, '');

-- name: find_key
-- The response that an Idempotency-Key belongs to, and the digest of its request.
SELECT response_id, digest
FROM idempotency_keys
WHERE tenant = %(tenant)s AND key = %(key)s;

-- name: abandon
-- Removes an unfinished response and its input, and gives tip and key back; nothing for a stale token.
WITH ended AS (
    DELETE FROM runs
    WHERE tenant = %(tenant)s AND response_id = %(id)s AND token = %(token)s AND coalesce(owner, '') <> ''
    RETURNING response_id
), abandoned AS (
    DELETE FROM responses
    WHERE tenant = %(tenant)s AND id = (SELECT response_id FROM ended)
    RETURNING thread_id, input_start, output_start, idempotency_key
), emptied AS (
    DELETE FROM items
    WHERE tenant = %(tenant)s
      AND thread_id = (SELECT thread_id FROM abandoned)
      AND position >= (SELECT input_start FROM abandoned)
      AND position < (SELECT output_start FROM abandoned)
), unlogged AS (
    DELETE FROM events
    WHERE tenant = %(tenant)s AND response_id = (SELECT response_id FROM ended)
), unkeyed AS (
    DELETE FROM idempotency_keys
    WHERE tenant = %(tenant)s AND key = (SELECT idempotency_key FROM abandoned)
)
UPDATE threads
SET writer = NULL
WHERE tenant = %(tenant)s AND id = (SELECT thread_id FROM abandoned) AND writer = %(id)s
RETURNING id;

-- name: finish
-- Ends a run whose token is still good: completes its response, writes output and the log's tail, and
-- frees the tip; returns one row if it did.
WITH ended AS (
    DELETE FROM runs
    WHERE tenant = %(tenant)s AND response_id = %(id)s AND token = %(token)s AND coalesce(owner, '') <> ''
    RETURNING response_id
), finished AS (
    UPDATE responses
    SET status = %(status)s, head = %(head)b, output_end = output_start + %(count)s,
        completed_at = clock_timestamp(), finished_token = %(token)s
    WHERE tenant = %(tenant)s AND id = (SELECT response_id FROM ended)
    RETURNING thread_id, output_start
), advanced AS (
    UPDATE threads
    SET tip = length + %(count)s, length = length + %(count)s, writer = NULL
    WHERE tenant = %(tenant)s AND id = (SELECT thread_id FROM finished)
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
    INSERT INTO events (tenant, response_id, first_number, last_number, frames)
    SELECT %(tenant)s, %(id)s, %(first)s, %(last)s, %(frames)b
    FROM finished
    WHERE %(first)s::bigint IS NOT NULL
)
SELECT thread_id FROM finished;

-- name: finished_before
-- Whether this very lease finished the response: for a finish whose answer was lost.
SELECT id
FROM responses
WHERE tenant = %(tenant)s AND id = %(id)s AND finished_token = %(token)s;

-- name: get
-- One response with its output.
SELECT
    r.id,
    CASE
        WHEN r.output_end IS NOT NULL THEN r.status
        WHEN (
            SELECT u.owner IS NULL
            FROM runs u
            WHERE u.tenant = %(tenant)s AND u.response_id = r.id
        ) THEN 'queued'
        ELSE 'in_progress'
    END,
    r.head,
    ARRAY(
        SELECT i.item
        FROM items i
        WHERE i.tenant = %(tenant)s AND i.thread_id = r.thread_id
          AND i.position >= r.output_start AND i.position < r.output_end
        ORDER BY i.position
    )
FROM responses r
WHERE r.tenant = %(tenant)s AND r.id = %(id)s;

-- name: lock_run
-- Waits for whoever is writing the response, in the order in which they lock.
SELECT response_id FROM runs WHERE tenant = %(tenant)s AND response_id = %(id)s FOR UPDATE;

-- name: lock_response
-- The same for a response that is finished, so that the next statement sees what they wrote.
SELECT id FROM responses WHERE tenant = %(tenant)s AND id = %(id)s FOR UPDATE;

-- name: delete
-- Removes a response with its items, events and run, and frees tip and key; returns its thread.
WITH deleted AS (
    DELETE FROM responses
    WHERE tenant = %(tenant)s AND id = %(id)s
    RETURNING id, thread_id, input_start, coalesce(output_end, output_start) AS until,
        idempotency_key
), emptied AS (
    DELETE FROM items
    WHERE tenant = %(tenant)s
      AND thread_id = (SELECT thread_id FROM deleted)
      AND position >= (SELECT input_start FROM deleted)
      AND position < (SELECT until FROM deleted)
), ended AS (
    DELETE FROM runs
    WHERE tenant = %(tenant)s AND response_id = (SELECT id FROM deleted)
), unlogged AS (
    DELETE FROM events
    WHERE tenant = %(tenant)s AND response_id = (SELECT id FROM deleted)
), unkeyed AS (
    DELETE FROM idempotency_keys
    WHERE tenant = %(tenant)s AND key = (SELECT idempotency_key FROM deleted)
), freed AS (
    UPDATE threads
    SET writer = NULL
    WHERE tenant = %(tenant)s AND id = (SELECT thread_id FROM deleted) AND writer = %(id)s
)
SELECT thread_id FROM deleted;

-- name: drop_empty_thread
-- Removes a thread in which nothing is and on which nothing hangs; returns its parent.
DELETE FROM threads t
WHERE t.tenant = %(tenant)s AND t.id = %(thread)s AND t.writer IS NULL
  AND NOT EXISTS (
      SELECT FROM items i WHERE i.tenant = %(tenant)s AND i.thread_id = %(thread)s
  )
  AND NOT EXISTS (
      SELECT FROM responses r WHERE r.tenant = %(tenant)s AND r.thread_id = %(thread)s
  )
  AND NOT EXISTS (
      SELECT FROM threads c WHERE c.tenant = %(tenant)s AND c.parent_id = %(thread)s
  )
RETURNING t.parent_id;

-- name: list_responses_asc
-- A page from the oldest on; each row starts with whether the cursor is known, id NULL if it is empty.
WITH place AS (
    SELECT created_at, id FROM responses WHERE tenant = %(tenant)s AND id = %(after)s
), bound AS (
    -- Apart from the comparison: row-level security lets no COALESCE in it come near the index.
    SELECT
        coalesce((SELECT created_at FROM place), '-infinity') AS created_at,
        coalesce(%(after)s::text, '') AS id
), page AS (
    SELECT created_at, id, status, head, thread_id, output_start, output_end
    FROM responses
    WHERE tenant = %(tenant)s
      AND (created_at, id) > ((SELECT created_at FROM bound), (SELECT id FROM bound))
      AND (%(model)s::text IS NULL OR model = %(model)s)
    ORDER BY created_at, id
    LIMIT %(limit)s
)
SELECT
    %(after)s::text IS NULL OR EXISTS (SELECT FROM place),
    p.id,
    CASE
        WHEN p.output_end IS NOT NULL THEN p.status
        WHEN (
            SELECT u.owner IS NULL
            FROM runs u
            WHERE u.tenant = %(tenant)s AND u.response_id = p.id
        ) THEN 'queued'
        ELSE 'in_progress'
    END,
    p.head,
    ARRAY(
        SELECT i.item
        FROM items i
        WHERE i.tenant = %(tenant)s AND i.thread_id = p.thread_id
          AND i.position >= p.output_start AND i.position < p.output_end
        ORDER BY i.position
    )
FROM (SELECT 1) one
LEFT JOIN page p ON true
ORDER BY p.created_at, p.id;

-- name: list_responses_desc
-- A page from the newest on; otherwise as list_responses_asc.
WITH place AS (
    SELECT created_at, id FROM responses WHERE tenant = %(tenant)s AND id = %(after)s
), bound AS (
    -- Apart from the comparison: row-level security lets no COALESCE in it come near the index.
    SELECT
        coalesce((SELECT created_at FROM place), 'infinity') AS created_at,
        coalesce(%(after)s::text, '') AS id
), page AS (
    SELECT created_at, id, status, head, thread_id, output_start, output_end
    FROM responses
    WHERE tenant = %(tenant)s
      AND (created_at, id) < ((SELECT created_at FROM bound), (SELECT id FROM bound))
      AND (%(model)s::text IS NULL OR model = %(model)s)
    ORDER BY created_at DESC, id DESC
    LIMIT %(limit)s
)
SELECT
    %(after)s::text IS NULL OR EXISTS (SELECT FROM place),
    p.id,
    CASE
        WHEN p.output_end IS NOT NULL THEN p.status
        WHEN (
            SELECT u.owner IS NULL
            FROM runs u
            WHERE u.tenant = %(tenant)s AND u.response_id = p.id
        ) THEN 'queued'
        ELSE 'in_progress'
    END,
    p.head,
    ARRAY(
        SELECT i.item
        FROM items i
        WHERE i.tenant = %(tenant)s AND i.thread_id = p.thread_id
          AND i.position >= p.output_start AND i.position < p.output_end
        ORDER BY i.position
    )
FROM (SELECT 1) one
LEFT JOIN page p ON true
ORDER BY p.created_at DESC, p.id DESC;

-- name: list_input_items_asc
-- A page of a response's own input; each row starts with whether the cursor is known, id NULL if it
-- is empty; no row if there is no such response.
WITH response AS (
    SELECT thread_id, input_start, output_start
    FROM responses
    WHERE tenant = %(tenant)s AND id = %(id)s
), place AS (
    SELECT max(position) AS position  -- the last of equal ids, so that following it ends
    FROM items
    WHERE tenant = %(tenant)s
      AND thread_id = (SELECT thread_id FROM response)
      AND position >= (SELECT input_start FROM response)
      AND position < (SELECT output_start FROM response)
      AND id = %(after)s
), page AS (
    SELECT position, id, item
    FROM items
    WHERE tenant = %(tenant)s
      AND thread_id = (SELECT thread_id FROM response)
      AND position > coalesce(
          (SELECT position FROM place), (SELECT input_start - 1 FROM response)
      )
      AND position < (SELECT output_start FROM response)
    ORDER BY position
    LIMIT %(limit)s
)
SELECT %(after)s::text IS NULL OR place.position IS NOT NULL, p.id, p.item
FROM response
CROSS JOIN place
LEFT JOIN page p ON true
ORDER BY p.position;

-- name: list_input_items_desc
-- The same from the last item on.
WITH response AS (
    SELECT thread_id, input_start, output_start
    FROM responses
    WHERE tenant = %(tenant)s AND id = %(id)s
), place AS (
    SELECT min(position) AS position
    FROM items
    WHERE tenant = %(tenant)s
      AND thread_id = (SELECT thread_id FROM response)
      AND position >= (SELECT input_start FROM response)
      AND position < (SELECT output_start FROM response)
      AND id = %(after)s
), page AS (
    SELECT position, id, item
    FROM items
    WHERE tenant = %(tenant)s
      AND thread_id = (SELECT thread_id FROM response)
      AND position >= (SELECT input_start FROM response)
      AND position < coalesce(
          (SELECT position FROM place), (SELECT output_start FROM response)
      )
    ORDER BY position DESC
    LIMIT %(limit)s
)
SELECT %(after)s::text IS NULL OR place.position IS NOT NULL, p.id, p.item
FROM response
CROSS JOIN place
LEFT JOIN page p ON true
ORDER BY p.position DESC;

-- name: find_items
-- The newest item of each of several ids.
SELECT i.id, i.type, i.item, i.replay, i.call_id
FROM (SELECT DISTINCT unnest(%(item_ids)b::text[]) AS id) wanted
CROSS JOIN LATERAL (
    SELECT id, type, item, replay, call_id
    FROM items
    WHERE tenant = %(tenant)s AND id = wanted.id
    ORDER BY created_at DESC, position DESC
    LIMIT 1
) i;
