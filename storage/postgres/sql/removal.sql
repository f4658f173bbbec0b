-- What removes responses, by tenant and id. Runs are locked before responses, these before threads.

-- name: lock_runs
-- Waits for whoever is writing the responses, so that what follows sees what they wrote.
SELECT response_id
FROM runs
WHERE tenant = %(tenant)s AND response_id = ANY (%(ids)s)
ORDER BY response_id COLLATE "C"
FOR UPDATE;

-- name: end_run
-- Ends a run whose lease is still good, for a response that is given up; returns the response.
DELETE FROM runs
WHERE tenant = %(tenant)s AND response_id = %(id)s AND token = %(token)s AND owner IS NOT NULL
RETURNING response_id;

-- name: lock_expired
-- Of these responses, those that are still to be removed and that nobody else is removing.
SELECT id
FROM responses
WHERE tenant = %(tenant)s AND id = ANY (%(ids)s)
  AND coalesce(expires_at <= clock_timestamp(), false) AND output_end IS NOT NULL
FOR UPDATE SKIP LOCKED;

-- name: responses_of_tenant
-- The first responses that a tenant has.
SELECT id
FROM responses
WHERE tenant = %(tenant)s AND created_at >= '-infinity'
ORDER BY created_at, id
LIMIT %(limit)s;

-- name: delete
-- Removes a response with all that is its own, and frees the tip if it was still being written; returns
-- its thread. What joined a conversation is that one's, if there is one still.
WITH deleted AS (
    DELETE FROM responses
    WHERE tenant = %(tenant)s AND id = %(id)s
    RETURNING
        thread_id, input_start, coalesce(output_end, output_start) AS until, idempotency_key,
        CASE WHEN output_end IS NOT NULL THEN conversation_id END AS joined
), kept AS (
    SELECT id
    FROM conversations
    WHERE tenant = %(tenant)s AND id = (SELECT joined FROM deleted)
), ended AS (
    DELETE FROM runs WHERE tenant = %(tenant)s AND response_id = %(id)s
), emptied AS (
    DELETE FROM items
    WHERE tenant = %(tenant)s
      AND thread_id = (SELECT thread_id FROM deleted)
      AND position >= (SELECT input_start FROM deleted)
      AND position < (SELECT until FROM deleted)
      AND (dropped OR NOT EXISTS (SELECT FROM kept))
), unlogged AS (
    DELETE FROM events
    WHERE tenant = %(tenant)s AND response_id = %(id)s AND EXISTS (SELECT FROM deleted)
), unkeyed AS (
    DELETE FROM idempotency
    WHERE tenant = %(tenant)s AND key = (SELECT idempotency_key FROM deleted)
), unasked AS (
    DELETE FROM approvals
    WHERE tenant = %(tenant)s AND response_id = %(id)s AND EXISTS (SELECT FROM deleted)
), freed AS (
    UPDATE threads
    SET writer = NULL
    WHERE tenant = %(tenant)s AND id = (SELECT thread_id FROM deleted) AND writer = %(id)s
)
SELECT thread_id FROM deleted;

-- name: lock_threads
-- Of these threads, those that nobody writes to or branches at this moment.
SELECT id
FROM threads
WHERE tenant = %(tenant)s AND id = ANY (%(ids)s) AND writer IS NULL
FOR UPDATE SKIP LOCKED;

-- name: remove_threads
-- Removes those of the locked threads that nothing hangs on, with what is left in them; returns their
-- parents.
WITH removed AS (
    DELETE FROM threads t
    WHERE t.tenant = %(tenant)s AND t.id = ANY (%(ids)s)
      AND NOT EXISTS (
          SELECT FROM responses r WHERE r.tenant = %(tenant)s AND r.thread_id = t.id OFFSET 0
      )
      AND NOT EXISTS (
          SELECT FROM threads c WHERE c.tenant = %(tenant)s AND c.parent_id = t.id OFFSET 0
      )
      AND NOT EXISTS (
          SELECT FROM conversations c WHERE c.tenant = %(tenant)s AND c.thread_id = t.id OFFSET 0
      )
    RETURNING t.id, t.parent_id
), emptied AS (
    DELETE FROM items
    WHERE tenant = %(tenant)s AND thread_id = ANY (ARRAY(SELECT id FROM removed))
)
SELECT parent_id FROM removed;

-- name: delete_conversation
-- Removes a conversation; returns the thread that it kept.
DELETE FROM conversations
WHERE tenant = %(tenant)s AND id = %(id)s
RETURNING thread_id;

-- name: conversations_of_tenant
-- The first conversations that a tenant has.
SELECT id
FROM conversations
WHERE tenant = %(tenant)s AND created_at >= '-infinity'
ORDER BY created_at, id
LIMIT %(limit)s;

-- name: bare_threads
-- Some threads of a tenant that has no response and no conversation any more.
SELECT id
FROM threads
WHERE tenant = %(tenant)s AND id > '' AND writer IS NULL
  AND NOT EXISTS (SELECT FROM responses WHERE tenant = %(tenant)s AND id > '')
  AND NOT EXISTS (SELECT FROM conversations WHERE tenant = %(tenant)s AND id > '')
ORDER BY id
LIMIT %(limit)s;

-- name: remove_connectors
-- Removes all connectors of a tenant.
DELETE FROM connectors WHERE tenant = %(tenant)s AND id > '';

-- name: remove_prompts
-- Removes all prompts of a tenant with their versions.
WITH versions AS (
    DELETE FROM prompt_versions WHERE tenant = %(tenant)s AND prompt_id > ''
)
DELETE FROM prompts WHERE tenant = %(tenant)s AND id > '';

-- name: remove_files
-- Removes all files and uploads of a tenant and drops all of its blobs, those being written too.
WITH removed AS (
    DELETE FROM files WHERE tenant = %(tenant)s AND id > ''
), ended AS (
    DELETE FROM uploads WHERE tenant = %(tenant)s AND id > ''
)
UPDATE blobs SET drop_at = clock_timestamp() WHERE tenant = %(tenant)s AND key > '';
