-- What takes files out of vector stores. Whoever asks for it holds the files and the stores already, in the
-- order that vector_stores.sql tells: nothing is attached there meanwhile, and nothing finished.

-- name: lock_going_files
-- Holds files, so that nobody attaches them before they are gone: those that have expired, or the others.
SELECT id
FROM files
WHERE tenant = %(tenant)s AND id = ANY (%(file_ids)s)
  AND coalesce(expires_at <= clock_timestamp(), false) = %(expired)s
ORDER BY id COLLATE "C"
FOR UPDATE;

-- name: lock_stores_of_files
-- Holds the stores that files are attached to.
SELECT id
FROM vector_stores
WHERE tenant = %(tenant)s
  AND id = ANY (
      ARRAY(
          SELECT store
          FROM attachments
          WHERE tenant = %(tenant)s AND file_id = ANY (%(file_ids)s) AND file_id > ''
      )
  )
ORDER BY id COLLATE "C"
FOR UPDATE;

-- name: attachments_of_files
-- Where files are attached.
SELECT id
FROM attachments
WHERE tenant = %(tenant)s AND file_id = ANY (%(file_ids)s) AND file_id > '';

-- name: attachment_of_file
-- Where a file is attached to a store.
SELECT id
FROM attachments
WHERE tenant = %(tenant)s AND store = %(id)s AND file_id = %(file_id)s AND file_id > '';

-- name: unfinished_of_batch
-- What of a batch is in progress.
SELECT id
FROM attachments
WHERE tenant = %(tenant)s AND batch = %(batch)s AND store = %(id)s AND status = 'in_progress';

-- name: lock_ingestions
-- Waits for whoever is writing chunks, so that what follows sees what they wrote.
SELECT attachment
FROM ingestions
WHERE tenant = %(tenant)s AND attachment = ANY (%(ids)s)
ORDER BY attachment COLLATE "C"
FOR UPDATE;

-- name: detach
-- Removes attachments with their ingestions; notes their chunks, which are removed later, and what may be in
-- the index.
WITH gone AS (
    DELETE FROM attachments
    WHERE tenant = %(tenant)s AND id = ANY (%(ids)s)
    RETURNING id, store, status, usage_bytes, late_until
), ended AS (
    DELETE FROM ingestions
    WHERE tenant = %(tenant)s AND attachment = ANY (%(ids)s)
    RETURNING attachment, expires
), dropped AS (
    INSERT INTO dropped_chunks (tenant, attachment, dropped_at)
    SELECT %(tenant)s, gone.id, clock_timestamp()
    FROM gone
    ON CONFLICT DO NOTHING
), noted AS (
    INSERT INTO removals (tenant, attachment, store, ready)
    SELECT
        %(tenant)s, gone.id, gone.store,
        greatest(coalesce(ended.expires, clock_timestamp()), gone.late_until)
    FROM gone
    LEFT JOIN ended ON ended.attachment = gone.id
    ON CONFLICT (tenant, attachment) DO UPDATE
    SET ready = greatest(removals.ready, excluded.ready)
)
UPDATE vector_stores s
SET (in_progress, completed, cancelled, failed, usage_bytes) = (
    SELECT
        s.in_progress - count(*) FILTER (WHERE gone.status = 'in_progress'),
        s.completed - count(*) FILTER (WHERE gone.status = 'completed'),
        s.cancelled - count(*) FILTER (WHERE gone.status = 'cancelled'),
        s.failed - count(*) FILTER (WHERE gone.status = 'failed'),
        s.usage_bytes - coalesce(sum(gone.usage_bytes), 0)
    FROM gone
    WHERE gone.store = s.id
)
WHERE s.tenant = %(tenant)s AND s.id = ANY (ARRAY(SELECT store FROM gone));

-- name: cancel
-- Cancels attachments in progress, as detach does, but they stay.
WITH ended AS (
    DELETE FROM ingestions
    WHERE tenant = %(tenant)s AND attachment = ANY (%(ids)s)
    RETURNING attachment, expires
), cancelled AS (
    UPDATE attachments
    SET status = 'cancelled'
    WHERE tenant = %(tenant)s AND id = ANY (%(ids)s)
    RETURNING id, late_until
), dropped AS (
    INSERT INTO dropped_chunks (tenant, attachment, dropped_at)
    SELECT %(tenant)s, cancelled.id, clock_timestamp()
    FROM cancelled
    ON CONFLICT DO NOTHING
), noted AS (
    INSERT INTO removals (tenant, attachment, store, ready)
    SELECT
        %(tenant)s, c.id, %(id)s,
        greatest(coalesce(ended.expires, clock_timestamp()), c.late_until)
    FROM cancelled c
    LEFT JOIN ended ON ended.attachment = c.id
    ON CONFLICT (tenant, attachment) DO UPDATE
    SET ready = greatest(removals.ready, excluded.ready)
)
UPDATE vector_stores
SET in_progress = in_progress - (SELECT count(*) FROM cancelled),
    cancelled = vector_stores.cancelled + (SELECT count(*) FROM cancelled)
WHERE tenant = %(tenant)s AND id = %(id)s;

-- name: cancel_batch
-- Notes that a batch was cancelled, if any of it was in progress.
UPDATE attachment_batches
SET cancelled = true
WHERE tenant = %(tenant)s AND id = %(batch)s AND store = %(id)s AND cardinality(%(ids)s::text[]) > 0;

-- name: hold_dropped
-- Of these attachments, whose chunks are to be removed, those that nobody else has in hand.
SELECT attachment
FROM dropped_chunks
WHERE tenant = %(tenant)s AND attachment = ANY (%(ids)s)
FOR UPDATE SKIP LOCKED;

-- name: wait_for_dropped
-- The same of all of them, and waits for whoever has them in hand.
SELECT attachment
FROM dropped_chunks
WHERE tenant = %(tenant)s AND attachment = ANY (%(ids)s)
ORDER BY attachment COLLATE "C"
FOR UPDATE;

-- name: drop_lot
-- Removes the first chunks of an attachment that is gone; returns how many.
WITH removed AS (
    DELETE FROM chunks
    WHERE tenant = %(tenant)s AND attachment = %(id)s
      AND number < coalesce(
          (
              SELECT number
              FROM chunks
              WHERE tenant = %(tenant)s AND attachment = %(id)s
              ORDER BY number
              OFFSET %(limit)s
              LIMIT 1
          ),
          9223372036854775807
      )
    RETURNING number
)
SELECT count(*) FROM removed;

-- name: forget_dropped
-- Forgets attachments that have no chunks any more.
DELETE FROM dropped_chunks
WHERE tenant = %(tenant)s AND attachment = ANY (%(ids)s);

-- name: dropped_of_tenant
-- Some attachments of a tenant whose chunks are to be removed.
SELECT attachment
FROM dropped_chunks
WHERE tenant = %(tenant)s AND attachment > ''
LIMIT %(limit)s;
