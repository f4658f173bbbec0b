-- Files of vector stores, and batches of them. As vector_stores.sql; what takes files out is in detaching.sql.

-- name: lock_files
-- Holds files, so that nobody deletes them before they are attached; returns those that are there.
SELECT id
FROM files
WHERE tenant = %(tenant)s AND id = ANY (%(file_ids)s) AND coalesce(expires_at > clock_timestamp(), true)
ORDER BY id COLLATE "C"
FOR KEY SHARE;

-- name: replaced
-- What is attached to a store under other ids of those files.
SELECT id
FROM attachments
WHERE tenant = %(tenant)s AND store = %(id)s AND file_id = ANY (%(file_ids)s) AND file_id > ''
  AND NOT id = ANY (%(ids)s);

-- name: attach
-- Attaches and queues files, and writes their batch; nothing where that was written before. Their times make
-- the order in which they were given.
WITH added AS (
    INSERT INTO attachments (
        tenant, id, store, file_id, created_at, attributes, chunk_size, chunk_overlap, batch
    )
    SELECT
        %(tenant)s, n.id, %(id)s, n.file_id,
        statement_timestamp() - (%(count)s - n.number) * interval '1 microsecond',
        n.labels::jsonb, n.size, n.overlap, %(batch)s
    FROM unnest(
        %(ids)s::text[], %(file_ids)s::text[], %(labels)s::text[],
        %(sizes)s::bigint[], %(overlaps)s::bigint[]
    ) WITH ORDINALITY AS n (id, file_id, labels, size, overlap, number)
    ON CONFLICT DO NOTHING
    RETURNING id, created_at
), queued AS (
    INSERT INTO ingestions (tenant, attachment, not_before)
    SELECT %(tenant)s, added.id, added.created_at
    FROM added
), batched AS (
    INSERT INTO attachment_batches (tenant, id, store, created_at)
    SELECT %(tenant)s, %(batch)s, %(id)s, statement_timestamp()
    WHERE %(batch)s::text IS NOT NULL
    ON CONFLICT DO NOTHING
)
UPDATE vector_stores
SET in_progress = in_progress + (SELECT count(*) FROM added)
WHERE tenant = %(tenant)s AND id = %(id)s;

-- name: attachments_by_id
-- Some files of a store.
SELECT
    id, store, file_id, floor(extract(epoch FROM created_at))::bigint, status,
    error_code, error, usage_bytes, attributes::text, chunk_size, chunk_overlap
FROM attachments
WHERE tenant = %(tenant)s AND id = ANY (%(ids)s);

-- name: get_attachment
-- One file of a store.
SELECT
    id, store, file_id, floor(extract(epoch FROM created_at))::bigint, status,
    error_code, error, usage_bytes, attributes::text, chunk_size, chunk_overlap
FROM attachments
WHERE tenant = %(tenant)s AND store = %(id)s AND file_id = %(file_id)s AND file_id > ''
  AND EXISTS (
          SELECT FROM vector_stores WHERE tenant = %(tenant)s AND id = %(id)s AND NOT deleted
      );

-- name: list_attachments_asc
-- What lies between two cursors, which are ids of files, of a store or of one batch; as list_vector_stores_asc.
WITH above AS (
    SELECT created_at, id
    FROM attachments
    WHERE tenant = %(tenant)s AND store = %(id)s AND file_id = %(above)s AND file_id > ''
      AND (%(batch)s::text IS NULL OR batch = %(batch)s)
), below AS (
    SELECT created_at, id
    FROM attachments
    WHERE tenant = %(tenant)s AND store = %(id)s AND file_id = %(below)s AND file_id > ''
      AND (%(batch)s::text IS NULL OR batch = %(batch)s)
), place AS (
    SELECT
        coalesce((SELECT created_at FROM above), '-infinity') AS above_at,
        coalesce((SELECT id FROM above), '') AS above,
        coalesce((SELECT created_at FROM below), 'infinity') AS below_at,
        coalesce((SELECT id FROM below), '') AS below
), page AS (
    SELECT id
    FROM (
        SELECT created_at, id
        FROM attachments
        WHERE %(batch)s::text IS NULL AND tenant = %(tenant)s AND store = %(id)s AND created_at > '-infinity'
          AND (created_at, id) > ((SELECT above_at FROM place), (SELECT above FROM place))
          AND (created_at, id) < ((SELECT below_at FROM place), (SELECT below FROM place))
          AND (%(status)s::text IS NULL OR status = %(status)s)
        ORDER BY created_at, id
        LIMIT %(limit)s
    ) of_store
    UNION ALL
    SELECT id
    FROM (
        SELECT created_at, id
        FROM attachments
        WHERE tenant = %(tenant)s AND batch = %(batch)s AND store = %(id)s
          AND (created_at, id) > ((SELECT above_at FROM place), (SELECT above FROM place))
          AND (created_at, id) < ((SELECT below_at FROM place), (SELECT below FROM place))
          AND (%(status)s::text IS NULL OR status = %(status)s)
        ORDER BY created_at, id
        LIMIT %(limit)s
    ) of_batch
)
SELECT
    %(above)s::text IS NULL OR EXISTS (SELECT FROM above),
    %(below)s::text IS NULL OR EXISTS (SELECT FROM below),
    a.id, a.store, a.file_id, a.created, a.status, a.error_code, a.error, a.usage_bytes, a.labels,
    a.chunk_size, a.chunk_overlap
FROM (SELECT 1) one
LEFT JOIN (
    page p
    CROSS JOIN LATERAL (
        SELECT
            created_at, id, store, file_id, floor(extract(epoch FROM created_at))::bigint AS created, status,
            error_code, error, usage_bytes, attributes::text AS labels, chunk_size, chunk_overlap
        FROM attachments
        WHERE tenant = %(tenant)s AND id = p.id
          AND EXISTS (
              SELECT FROM vector_stores WHERE tenant = %(tenant)s AND id = %(id)s AND NOT deleted
          )
        OFFSET 0
    ) a
) ON true
ORDER BY a.created_at, a.id;

-- name: list_attachments_desc
-- The same from the newest on.
WITH above AS (
    SELECT created_at, id
    FROM attachments
    WHERE tenant = %(tenant)s AND store = %(id)s AND file_id = %(above)s AND file_id > ''
      AND (%(batch)s::text IS NULL OR batch = %(batch)s)
), below AS (
    SELECT created_at, id
    FROM attachments
    WHERE tenant = %(tenant)s AND store = %(id)s AND file_id = %(below)s AND file_id > ''
      AND (%(batch)s::text IS NULL OR batch = %(batch)s)
), place AS (
    SELECT
        coalesce((SELECT created_at FROM above), '-infinity') AS above_at,
        coalesce((SELECT id FROM above), '') AS above,
        coalesce((SELECT created_at FROM below), 'infinity') AS below_at,
        coalesce((SELECT id FROM below), '') AS below
), page AS (
    SELECT id
    FROM (
        SELECT created_at, id
        FROM attachments
        WHERE %(batch)s::text IS NULL AND tenant = %(tenant)s AND store = %(id)s AND created_at > '-infinity'
          AND (created_at, id) > ((SELECT above_at FROM place), (SELECT above FROM place))
          AND (created_at, id) < ((SELECT below_at FROM place), (SELECT below FROM place))
          AND (%(status)s::text IS NULL OR status = %(status)s)
        ORDER BY created_at DESC, id DESC
        LIMIT %(limit)s
    ) of_store
    UNION ALL
    SELECT id
    FROM (
        SELECT created_at, id
        FROM attachments
        WHERE tenant = %(tenant)s AND batch = %(batch)s AND store = %(id)s
          AND (created_at, id) > ((SELECT above_at FROM place), (SELECT above FROM place))
          AND (created_at, id) < ((SELECT below_at FROM place), (SELECT below FROM place))
          AND (%(status)s::text IS NULL OR status = %(status)s)
        ORDER BY created_at DESC, id DESC
        LIMIT %(limit)s
    ) of_batch
)
SELECT
    %(above)s::text IS NULL OR EXISTS (SELECT FROM above),
    %(below)s::text IS NULL OR EXISTS (SELECT FROM below),
    a.id, a.store, a.file_id, a.created, a.status, a.error_code, a.error, a.usage_bytes, a.labels,
    a.chunk_size, a.chunk_overlap
FROM (SELECT 1) one
LEFT JOIN (
    page p
    CROSS JOIN LATERAL (
        SELECT
            created_at, id, store, file_id, floor(extract(epoch FROM created_at))::bigint AS created, status,
            error_code, error, usage_bytes, attributes::text AS labels, chunk_size, chunk_overlap
        FROM attachments
        WHERE tenant = %(tenant)s AND id = p.id
          AND EXISTS (
              SELECT FROM vector_stores WHERE tenant = %(tenant)s AND id = %(id)s AND NOT deleted
          )
        OFFSET 0
    ) a
) ON true
ORDER BY a.created_at DESC, a.id DESC;

-- name: label
-- Replaces the attributes of a file.
UPDATE attachments
SET attributes = %(labels)s::jsonb
WHERE tenant = %(tenant)s AND store = %(id)s AND file_id = %(file_id)s AND file_id > ''
  AND EXISTS (
          SELECT FROM vector_stores WHERE tenant = %(tenant)s AND id = %(id)s AND NOT deleted
      )
RETURNING
    id, store, file_id, floor(extract(epoch FROM created_at))::bigint, status,
    error_code, error, usage_bytes, attributes::text, chunk_size, chunk_overlap;

-- name: get_batch
-- A batch, and how many of its files there are by status.
SELECT
    b.id, b.store, floor(extract(epoch FROM b.created_at))::bigint, b.cancelled,
    c.in_progress, c.completed, c.cancelled, c.failed
FROM (
    SELECT id, store, created_at, cancelled
    FROM attachment_batches
    WHERE tenant = %(tenant)s AND id = %(batch)s AND store = %(id)s
      AND EXISTS (
          SELECT FROM vector_stores WHERE tenant = %(tenant)s AND id = %(id)s AND NOT deleted
      )
) b
CROSS JOIN LATERAL (
    SELECT
        count(*) FILTER (WHERE status = 'in_progress') AS in_progress,
        count(*) FILTER (WHERE status = 'completed') AS completed,
        count(*) FILTER (WHERE status = 'cancelled') AS cancelled,
        count(*) FILTER (WHERE status = 'failed') AS failed
    FROM attachments
    WHERE tenant = %(tenant)s AND batch = b.id AND store = b.store
    OFFSET 0
) c;

-- name: matching
-- Completed files of a store whose attributes match a path, which gives true or false.
SELECT id
FROM attachments
WHERE tenant = %(tenant)s AND store = %(id)s AND created_at > '-infinity' AND status = 'completed'
  AND jsonb_path_match(attributes, %(path)s::jsonpath, %(vars)s::jsonb)
  AND EXISTS (
      SELECT FROM vector_stores
      WHERE tenant = %(tenant)s AND id = %(id)s AND NOT deleted
        AND coalesce(expires_at > clock_timestamp(), true)
  )
ORDER BY created_at, id
LIMIT %(limit)s;

-- name: found
-- What is at some places: chunks of completed files, that are there, of stores that have not expired.
SELECT p.attachment, p.number, a.store, a.file_id, f.filename, a.labels, c.text
FROM unnest(%(ids)s::text[], %(numbers)s::bigint[]) AS p (attachment, number)
CROSS JOIN LATERAL (
    SELECT store, file_id, attributes::text AS labels
    FROM attachments
    WHERE tenant = %(tenant)s AND id = p.attachment AND status = 'completed'
    OFFSET 0
) a
CROSS JOIN LATERAL (
    SELECT filename
    FROM files
    WHERE tenant = %(tenant)s AND id = a.file_id AND coalesce(expires_at > clock_timestamp(), true)
    OFFSET 0
) f
CROSS JOIN LATERAL (
    SELECT
    FROM vector_stores
    WHERE tenant = %(tenant)s AND id = a.store AND NOT deleted
      AND coalesce(expires_at > clock_timestamp(), true)
    OFFSET 0
) s
CROSS JOIN LATERAL (
    SELECT text
    FROM chunks
    WHERE tenant = %(tenant)s AND attachment = p.attachment AND number = p.number
    OFFSET 0
) c;
