-- Ingestions and chunks, by tenant and attachment. Whoever writes chunks holds the ingestion; what goes over
-- all tenants is in gates.sql.

-- name: hold_ingestion
-- Holds an ingestion that nobody has taken over or ended, and notes whether its chunks are whole. A lease that
-- has run out is good until then.
UPDATE ingestions
SET chunked = %(whole)s
WHERE tenant = %(tenant)s AND attachment = %(id)s AND token = %(token)s AND expires IS NOT NULL
RETURNING attachment;

-- name: drop_chunks
-- Removes the chunks from a number on, as hold_ingestion.
DELETE FROM chunks
WHERE tenant = %(tenant)s AND attachment = %(id)s AND number >= %(first)s
  AND EXISTS (
      SELECT FROM ingestions
      WHERE tenant = %(tenant)s AND attachment = %(id)s AND token = %(token)s AND expires IS NOT NULL
  );

-- name: add_chunks
-- Adds chunks from a number on, as hold_ingestion.
INSERT INTO chunks (tenant, attachment, number, text)
SELECT %(tenant)s, %(id)s, %(first)s + c.number - 1, c.text
FROM unnest(%(texts)b::bytea[]) WITH ORDINALITY AS c (text, number)
WHERE EXISTS (
    SELECT FROM ingestions
    WHERE tenant = %(tenant)s AND attachment = %(id)s AND token = %(token)s AND expires IS NOT NULL
);

-- name: chunk_texts
-- Chunks above a number, of what is not gone: what of that is still there is to be removed.
SELECT text
FROM chunks
WHERE tenant = %(tenant)s AND attachment = %(id)s AND number > %(past)s
  AND EXISTS (
      SELECT FROM attachments
      WHERE tenant = %(tenant)s AND id = %(id)s AND status IN ('in_progress', 'completed')
  )
ORDER BY number
LIMIT %(limit)s;

-- name: chunks
-- The same with their vectors by a model.
SELECT number, text, CASE WHEN model = %(model)s THEN vector END
FROM chunks
WHERE tenant = %(tenant)s AND attachment = %(id)s AND number > %(past)s
  AND EXISTS (
      SELECT FROM attachments
      WHERE tenant = %(tenant)s AND id = %(id)s AND status IN ('in_progress', 'completed')
  )
ORDER BY number
LIMIT %(limit)s;

-- name: chunk_count
-- How many chunks there are, and how many of them have a vector by a model.
SELECT count(*), count(*) FILTER (WHERE model = %(model)s)
FROM chunks
WHERE tenant = %(tenant)s AND attachment = %(id)s
  AND EXISTS (
      SELECT FROM attachments
      WHERE tenant = %(tenant)s AND id = %(id)s AND status IN ('in_progress', 'completed')
  );

-- name: store_vectors
-- Keeps the vectors of chunks of what is not gone.
UPDATE chunks c
SET model = %(model)s, vector = v.vector
FROM unnest(%(numbers)s::bigint[], %(vectors)b::bytea[]) AS v (number, vector)
WHERE c.tenant = %(tenant)s AND c.attachment = %(id)s AND c.number = v.number
  AND c.number >= %(lowest)s AND c.number <= %(highest)s
  AND EXISTS (
      SELECT FROM attachments
      WHERE tenant = %(tenant)s AND id = %(id)s AND status IN ('in_progress', 'completed')
  );

-- name: lock_store_of
-- Holds the store of an attachment.
SELECT id
FROM vector_stores
WHERE tenant = %(tenant)s
  AND id = (SELECT store FROM attachments WHERE tenant = %(tenant)s AND id = %(id)s)
FOR UPDATE;

-- name: finish_ingestion
-- Ends an ingestion, as hold_ingestion; of what failed the chunks are to be removed, here and in the index: there
-- when the lease would have run out, because what its owner gave up waiting for may be inserted until then.
WITH held AS (
    DELETE FROM ingestions
    WHERE tenant = %(tenant)s AND attachment = %(id)s AND token = %(token)s AND expires IS NOT NULL
    RETURNING attachment, expires
), size AS (
    SELECT coalesce(sum(octet_length(text) + coalesce(octet_length(vector), 0)), 0) AS bytes
    FROM chunks
    WHERE tenant = %(tenant)s AND attachment = %(id)s AND %(error_code)s::text IS NULL
), ended AS (
    UPDATE attachments
    SET status = CASE WHEN %(error_code)s::text IS NULL THEN 'completed' ELSE 'failed' END,
        error_code = %(error_code)s, error = %(error)b, finished_by = %(token)s,
        usage_bytes = (SELECT bytes FROM size)
    WHERE tenant = %(tenant)s AND id = (SELECT attachment FROM held)
    RETURNING id, store, usage_bytes, late_until
), dropped AS (
    INSERT INTO dropped_chunks (tenant, attachment, dropped_at)
    SELECT %(tenant)s, ended.id, clock_timestamp()
    FROM ended
    WHERE %(error_code)s::text IS NOT NULL
    ON CONFLICT DO NOTHING
), noted AS (
    INSERT INTO removals (tenant, attachment, store, ready)
    SELECT
        %(tenant)s, ended.id, ended.store,
        greatest((SELECT expires FROM held), clock_timestamp(), ended.late_until)
    FROM ended
    WHERE %(error_code)s::text IS NOT NULL
    ON CONFLICT (tenant, attachment) DO UPDATE
    SET ready = greatest(removals.ready, excluded.ready)
)
UPDATE vector_stores
SET in_progress = in_progress - 1,
    completed = completed + (%(error_code)s::text IS NULL)::int,
    failed = failed + (%(error_code)s::text IS NOT NULL)::int,
    usage_bytes = usage_bytes + (SELECT ended.usage_bytes FROM ended)
WHERE tenant = %(tenant)s AND id = (SELECT store FROM ended);

-- name: finished
-- Whether this very lease has ended the ingestion.
SELECT id
FROM attachments
WHERE tenant = %(tenant)s AND id = %(id)s AND finished_by = %(token)s;

-- name: put_back
-- Puts an ingestion back into the queue; whoever had it has it no longer. Until his lease would have run out, what
-- he gave up waiting for may still be inserted.
WITH held AS (
    SELECT attachment, expires
    FROM ingestions
    WHERE tenant = %(tenant)s AND attachment = %(id)s AND token = %(token)s AND expires IS NOT NULL
    FOR UPDATE
), noted AS (
    UPDATE attachments
    SET late_until = greatest(late_until, (SELECT expires FROM held))
    WHERE tenant = %(tenant)s AND id = (SELECT attachment FROM held)
)
UPDATE ingestions
SET owner = NULL, expires = NULL, token = token + 1,
    attempts = CASE WHEN %(counts)s THEN attempts ELSE attempts - 1 END,
    not_before = CASE
        WHEN %(seconds)s > 0 THEN clock_timestamp() + make_interval(secs => %(seconds)s)
        ELSE not_before
    END
WHERE tenant = %(tenant)s AND attachment = (SELECT attachment FROM held)
  AND token = %(token)s AND expires IS NOT NULL;

-- name: forget_removals
-- Forgets what was removed from the index.
DELETE FROM removals
WHERE tenant = %(tenant)s AND attachment = ANY (%(ids)s)
  AND coalesce(ready <= clock_timestamp(), false);
