-- Vector stores. Each statement names the tenant and goes by key, as in reading.sql; times are compared within
-- coalesce, as in files.sql. What changes what is attached locks files, then stores, then ingestions; of
-- several, in the order of their ids.

-- name: add_vector_store
-- A store; nothing where it was written before.
INSERT INTO vector_stores (
    tenant, id, created_at, name, description, metadata, expire_days, last_active_at, expires_at
)
SELECT
    %(tenant)s, %(id)s, statement_timestamp(), %(name)s, %(description)s, %(metadata)b,
    %(days)s::bigint, statement_timestamp(),
    statement_timestamp() + make_interval(secs => %(days)s * 86400.0)
ON CONFLICT DO NOTHING;

-- name: get_vector_store
-- One store.
SELECT
    id, floor(extract(epoch FROM created_at))::bigint, name, description, metadata,
    expire_days, floor(extract(epoch FROM last_active_at))::bigint,
    floor(extract(epoch FROM expires_at))::bigint,
    coalesce(expires_at <= clock_timestamp(), false), usage_bytes,
    in_progress, completed, cancelled, failed
FROM vector_stores
WHERE tenant = %(tenant)s AND id = %(id)s AND NOT deleted;

-- name: list_vector_stores_asc
-- What lies between two cursors, from the oldest on; each row starts with whether the cursors are known, id
-- NULL if it is empty.
WITH above AS (
    SELECT created_at, id
    FROM vector_stores
    WHERE tenant = %(tenant)s AND id = %(above)s AND NOT deleted
), below AS (
    SELECT created_at, id
    FROM vector_stores
    WHERE tenant = %(tenant)s AND id = %(below)s AND NOT deleted
), place AS (
    SELECT
        coalesce((SELECT created_at FROM above), '-infinity') AS above_at,
        coalesce(%(above)s, '') AS above,
        coalesce((SELECT created_at FROM below), 'infinity') AS below_at,
        coalesce(%(below)s, '') AS below
), page AS (
    SELECT
        created_at AS order_by,
        id, floor(extract(epoch FROM created_at))::bigint AS created, name, description, metadata,
        expire_days, floor(extract(epoch FROM last_active_at))::bigint AS active,
        floor(extract(epoch FROM expires_at))::bigint AS expires,
        coalesce(expires_at <= clock_timestamp(), false) AS expired, usage_bytes,
        in_progress, completed, cancelled, failed
    FROM vector_stores
    WHERE tenant = %(tenant)s AND created_at > '-infinity'
      AND (created_at, id) > ((SELECT above_at FROM place), (SELECT above FROM place))
      AND (created_at, id) < ((SELECT below_at FROM place), (SELECT below FROM place))
      AND NOT deleted
    ORDER BY created_at, id
    LIMIT %(limit)s
)
SELECT
    %(above)s::text IS NULL OR EXISTS (SELECT FROM above),
    %(below)s::text IS NULL OR EXISTS (SELECT FROM below),
    p.id, p.created, p.name, p.description, p.metadata, p.expire_days, p.active, p.expires,
    p.expired, p.usage_bytes, p.in_progress, p.completed, p.cancelled, p.failed
FROM (SELECT 1) one
LEFT JOIN page p ON true
ORDER BY p.order_by, p.id;

-- name: list_vector_stores_desc
-- The same from the newest on.
WITH above AS (
    SELECT created_at, id
    FROM vector_stores
    WHERE tenant = %(tenant)s AND id = %(above)s AND NOT deleted
), below AS (
    SELECT created_at, id
    FROM vector_stores
    WHERE tenant = %(tenant)s AND id = %(below)s AND NOT deleted
), place AS (
    SELECT
        coalesce((SELECT created_at FROM above), '-infinity') AS above_at,
        coalesce(%(above)s, '') AS above,
        coalesce((SELECT created_at FROM below), 'infinity') AS below_at,
        coalesce(%(below)s, '') AS below
), page AS (
    SELECT
        created_at AS order_by,
        id, floor(extract(epoch FROM created_at))::bigint AS created, name, description, metadata,
        expire_days, floor(extract(epoch FROM last_active_at))::bigint AS active,
        floor(extract(epoch FROM expires_at))::bigint AS expires,
        coalesce(expires_at <= clock_timestamp(), false) AS expired, usage_bytes,
        in_progress, completed, cancelled, failed
    FROM vector_stores
    WHERE tenant = %(tenant)s AND created_at > '-infinity'
      AND (created_at, id) > ((SELECT above_at FROM place), (SELECT above FROM place))
      AND (created_at, id) < ((SELECT below_at FROM place), (SELECT below FROM place))
      AND NOT deleted
    ORDER BY created_at DESC, id DESC
    LIMIT %(limit)s
)
SELECT
    %(above)s::text IS NULL OR EXISTS (SELECT FROM above),
    %(below)s::text IS NULL OR EXISTS (SELECT FROM below),
    p.id, p.created, p.name, p.description, p.metadata, p.expire_days, p.active, p.expires,
    p.expired, p.usage_bytes, p.in_progress, p.completed, p.cancelled, p.failed
FROM (SELECT 1) one
LEFT JOIN page p ON true
ORDER BY p.order_by DESC, p.id DESC;

-- name: update_vector_store
-- Sets what is said to be set; the time of what has expired stays.
UPDATE vector_stores
SET name = CASE WHEN %(set_name)s THEN %(name)s ELSE name END,
    metadata = CASE WHEN %(set_metadata)s THEN %(metadata)b ELSE metadata END,
    expire_days = CASE
        WHEN %(set_days)s AND coalesce(expires_at > clock_timestamp(), true) THEN %(days)s::bigint
        ELSE expire_days
    END,
    expires_at = CASE
        WHEN %(set_days)s AND coalesce(expires_at > clock_timestamp(), true)
            THEN last_active_at + make_interval(secs => %(days)s * 86400.0)
        ELSE expires_at
    END
WHERE tenant = %(tenant)s AND id = %(id)s AND NOT deleted;

-- name: touch_vector_stores
-- Notes that stores were used, where that was not noted within the last minute.
WITH held AS (
    SELECT id
    FROM vector_stores
    WHERE tenant = %(tenant)s AND id = ANY (%(ids)s) AND NOT deleted
      AND last_active_at <= clock_timestamp() - interval '1 minute'
      AND coalesce(expires_at > clock_timestamp(), true)
    ORDER BY id COLLATE "C"
    FOR UPDATE
)
UPDATE vector_stores
SET last_active_at = statement_timestamp(),
    expires_at = statement_timestamp() + make_interval(secs => expire_days * 86400.0)
WHERE tenant = %(tenant)s AND id = ANY (ARRAY(SELECT id FROM held));

-- name: lock_live_store
-- Holds a store that has not expired.
SELECT id
FROM vector_stores
WHERE tenant = %(tenant)s AND id = %(id)s AND NOT deleted
  AND coalesce(expires_at > clock_timestamp(), true)
FOR UPDATE;

-- name: lock_store
-- Holds a store.
SELECT id
FROM vector_stores
WHERE tenant = %(tenant)s AND id = %(id)s AND NOT deleted
FOR UPDATE;

-- name: delete_vector_store
-- Hides a store and holds it; its files are detached next, as those of one that has expired.
UPDATE vector_stores
SET deleted = true, emptied = false, expires_at = statement_timestamp()
WHERE tenant = %(tenant)s AND id = %(id)s AND NOT deleted
RETURNING id;

-- name: stores_of_tenant
-- Some stores that a tenant has, deleted ones too.
SELECT id
FROM vector_stores
WHERE tenant = %(tenant)s AND id > ''
LIMIT %(limit)s;

-- name: delete_stores
-- Hides stores.
UPDATE vector_stores
SET deleted = true, emptied = false, expires_at = statement_timestamp()
WHERE tenant = %(tenant)s AND id = ANY (%(ids)s);

-- name: lock_ended_store
-- Holds a store whose files are to be detached, unless somebody else is doing that.
SELECT id
FROM vector_stores
WHERE tenant = %(tenant)s AND id = %(id)s
  AND coalesce(expires_at <= clock_timestamp(), false) AND coalesce(NOT emptied, false)
FOR UPDATE SKIP LOCKED;

-- name: some_attachments
-- The first files of a store.
SELECT id
FROM attachments
WHERE tenant = %(tenant)s AND store = %(id)s AND created_at > '-infinity'
ORDER BY created_at, id
LIMIT %(limit)s;

-- name: close_batches
-- Removes the batches of a store that has no files any more.
DELETE FROM attachment_batches
WHERE tenant = %(tenant)s AND store = %(id)s AND store > ''
  AND NOT EXISTS (
      SELECT FROM attachments
      WHERE tenant = %(tenant)s AND store = %(id)s AND created_at > '-infinity'
  );

-- name: remove_store
-- Removes a store that was deleted, if it has no files any more.
DELETE FROM vector_stores
WHERE tenant = %(tenant)s AND id = %(id)s AND deleted
  AND NOT EXISTS (
      SELECT FROM attachments
      WHERE tenant = %(tenant)s AND store = %(id)s AND created_at > '-infinity'
  )
RETURNING id;

-- name: leave_store
-- Notes of a store that has expired, if it has no files any more, that nothing is left to be done.
UPDATE vector_stores
SET emptied = true
WHERE tenant = %(tenant)s AND id = %(id)s AND NOT deleted
  AND NOT EXISTS (
      SELECT FROM attachments
      WHERE tenant = %(tenant)s AND store = %(id)s AND created_at > '-infinity'
  )
RETURNING id;
