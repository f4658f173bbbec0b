-- Files, uploads and their blobs. Each statement names the tenant and goes by key, as in reading.sql; times
-- are compared within coalesce, so that no plan takes the indexes of the sweep for them.

-- name: reserve_blob
-- A blob that is about to be written.
INSERT INTO blobs (tenant, key, drop_at)
SELECT %(tenant)s, %(key)s, clock_timestamp() + make_interval(secs => %(seconds)s)
ON CONFLICT DO NOTHING;

-- name: drop_blob
-- Drops an announced blob that nothing has taken.
UPDATE blobs
SET drop_at = clock_timestamp()
WHERE tenant = %(tenant)s AND key = %(key)s AND holder = '';

-- name: add_file
-- A file of an announced blob, unless that is about to be dropped; nothing where it was written before.
WITH blob AS (
    UPDATE blobs
    SET holder = %(id)s, bytes = %(bytes)s, sha256 = %(sha256)s,
        drop_at = statement_timestamp() + make_interval(secs => %(keep)s::double precision)
    WHERE tenant = %(tenant)s AND key = %(key)s AND holder = ''
      AND coalesce(drop_at > clock_timestamp() + interval '5 minutes', false)
    RETURNING key
)
INSERT INTO files (tenant, id, created_at, expires_at, purpose, filename, bytes)
SELECT
    %(tenant)s, %(id)s, statement_timestamp(),
    statement_timestamp() + make_interval(secs => %(keep)s::double precision),
    %(purpose)s, %(filename)s, %(bytes)s
FROM blob;

-- name: get_file
-- A file whose time has not come.
SELECT
    id, floor(extract(epoch FROM created_at))::bigint, floor(extract(epoch FROM expires_at))::bigint,
    purpose, filename, bytes
FROM files
WHERE tenant = %(tenant)s AND id = %(id)s AND coalesce(expires_at > clock_timestamp(), true);

-- name: file_blobs
-- The blobs of a file or an upload, in order.
SELECT key, bytes, sha256
FROM blobs
WHERE tenant = %(tenant)s AND holder = %(id)s AND holder > ''
ORDER BY number;

-- name: list_files_asc
-- A page from the oldest on; each row starts with whether the cursor is known, id NULL if it is empty.
WITH cursor AS (
    SELECT created_at, id FROM files WHERE tenant = %(tenant)s AND id = %(after)s
), place AS (
    SELECT
        coalesce((SELECT created_at FROM cursor), '-infinity') AS created_at,
        coalesce(%(after)s, '') AS id
), page AS (
    SELECT created_at, id, expires_at, purpose, filename, bytes
    FROM files
    WHERE tenant = %(tenant)s AND created_at > '-infinity'
      AND (created_at, id) > ((SELECT created_at FROM place), (SELECT id FROM place))
      AND (%(purpose)s::text IS NULL OR purpose = %(purpose)s)
      AND coalesce(expires_at > clock_timestamp(), true)
    ORDER BY created_at, id
    LIMIT %(limit)s
)
SELECT
    %(after)s::text IS NULL OR EXISTS (SELECT FROM cursor),
    p.id, floor(extract(epoch FROM p.created_at))::bigint,
    floor(extract(epoch FROM p.expires_at))::bigint, p.purpose, p.filename, p.bytes
FROM (SELECT 1) one
LEFT JOIN page p ON true
ORDER BY p.created_at, p.id;

-- name: list_files_desc
-- A page from the newest on; otherwise as list_files_asc.
WITH cursor AS (
    SELECT created_at, id FROM files WHERE tenant = %(tenant)s AND id = %(after)s
), place AS (
    SELECT
        coalesce((SELECT created_at FROM cursor), 'infinity') AS created_at,
        coalesce(%(after)s, '') AS id
), page AS (
    SELECT created_at, id, expires_at, purpose, filename, bytes
    FROM files
    WHERE tenant = %(tenant)s AND created_at > '-infinity'
      AND (created_at, id) < ((SELECT created_at FROM place), (SELECT id FROM place))
      AND (%(purpose)s::text IS NULL OR purpose = %(purpose)s)
      AND coalesce(expires_at > clock_timestamp(), true)
    ORDER BY created_at DESC, id DESC
    LIMIT %(limit)s
)
SELECT
    %(after)s::text IS NULL OR EXISTS (SELECT FROM cursor),
    p.id, floor(extract(epoch FROM p.created_at))::bigint,
    floor(extract(epoch FROM p.expires_at))::bigint, p.purpose, p.filename, p.bytes
FROM (SELECT 1) one
LEFT JOIN page p ON true
ORDER BY p.created_at DESC, p.id DESC;

-- name: delete_file
-- A file whose time has not come; its blobs are dropped. Returns it.
WITH file AS (
    DELETE FROM files
    WHERE tenant = %(tenant)s AND id = %(id)s AND coalesce(expires_at > clock_timestamp(), true)
    RETURNING id
), dropped AS (
    UPDATE blobs
    SET drop_at = clock_timestamp()
    WHERE tenant = %(tenant)s AND holder = %(id)s AND holder > '' AND EXISTS (SELECT FROM file)
)
SELECT id FROM file;

-- name: add_upload
-- A pending upload.
INSERT INTO uploads (
    tenant, id, created_at, expires_at, bytes, purpose, filename, media_type, keep_seconds
)
SELECT
    %(tenant)s, %(id)s, statement_timestamp(),
    statement_timestamp() + make_interval(secs => %(seconds)s),
    %(bytes)s, %(purpose)s, %(filename)s, %(media_type)s, %(keep)s::bigint
ON CONFLICT DO NOTHING;

-- name: get_upload
-- An upload; a pending one whose time has come is expired.
SELECT
    id, floor(extract(epoch FROM created_at))::bigint, floor(extract(epoch FROM expires_at))::bigint,
    CASE WHEN status = 'pending' AND expires_at <= clock_timestamp() THEN 'expired' ELSE status END,
    bytes, purpose, filename, media_type, keep_seconds, file_id
FROM uploads
WHERE tenant = %(tenant)s AND id = %(id)s;

-- name: add_part
-- Gives an announced blob to a pending upload; it outlives it by an hour, in which nothing asks for it.
WITH until AS (
    SELECT expires_at + interval '1 hour'
    FROM uploads
    WHERE tenant = %(tenant)s AND id = %(id)s
      AND status = 'pending' AND coalesce(expires_at > clock_timestamp(), false)
)
UPDATE blobs
SET holder = %(id)s, bytes = %(bytes)s, sha256 = %(sha256)s, drop_at = (TABLE until)
WHERE tenant = %(tenant)s AND key = %(key)s AND holder IN ('', %(id)s)
  AND coalesce(drop_at > clock_timestamp() + interval '5 minutes', false) AND EXISTS (TABLE until)
RETURNING key;

-- name: complete_upload
-- Makes a file of parts of a pending upload; its other parts are dropped.
WITH upload AS (
    UPDATE uploads
    SET status = 'completed', file_id = %(file_id)s
    WHERE tenant = %(tenant)s AND id = %(id)s
      AND status = 'pending' AND coalesce(expires_at > clock_timestamp(), false)
    RETURNING purpose, filename, bytes, keep_seconds
), keeping AS (
    SELECT make_interval(secs => keep_seconds::double precision) FROM upload
), kept AS (
    UPDATE blobs
    SET holder = %(file_id)s, number = array_position(%(keys)s::text[], key),
        drop_at = statement_timestamp() + (TABLE keeping)
    WHERE tenant = %(tenant)s AND holder = %(id)s AND holder > '' AND key = ANY (%(keys)s::text[])
      AND EXISTS (TABLE keeping)
), dropped AS (
    UPDATE blobs
    SET drop_at = clock_timestamp()
    WHERE tenant = %(tenant)s AND holder = %(id)s AND holder > ''
      AND NOT key = ANY (%(keys)s::text[]) AND EXISTS (SELECT FROM upload)
)
INSERT INTO files (tenant, id, created_at, expires_at, purpose, filename, bytes)
SELECT
    %(tenant)s, %(file_id)s, statement_timestamp(),
    statement_timestamp() + make_interval(secs => upload.keep_seconds::double precision),
    upload.purpose, upload.filename, upload.bytes
FROM upload;

-- name: cancel_upload
-- Cancels a pending upload and drops its parts; returns it.
WITH upload AS (
    UPDATE uploads
    SET status = 'cancelled'
    WHERE tenant = %(tenant)s AND id = %(id)s
      AND status = 'pending' AND coalesce(expires_at > clock_timestamp(), false)
    RETURNING id
), dropped AS (
    UPDATE blobs
    SET drop_at = clock_timestamp()
    WHERE tenant = %(tenant)s AND holder = %(id)s AND holder > '' AND EXISTS (SELECT FROM upload)
)
SELECT id FROM upload;

-- name: dropped_blobs_of
-- Blobs of one tenant that nothing needs.
SELECT key
FROM blobs
WHERE tenant = %(tenant)s AND key > ''
  AND coalesce(drop_at <= clock_timestamp(), false)
LIMIT %(limit)s;

-- name: forget_blobs
-- Forgets dropped blobs.
DELETE FROM blobs
WHERE tenant = %(tenant)s AND key = ANY (%(keys)s)
  AND coalesce(drop_at <= clock_timestamp(), false);

-- name: remove_expired_files
-- Of these files and uploads, those whose time has come; the blobs of such files drop by themselves.
WITH removed AS (
    DELETE FROM files
    WHERE tenant = %(tenant)s AND id = ANY (%(ids)s)
      AND coalesce(expires_at <= clock_timestamp(), false)
    RETURNING id
), ended AS (
    DELETE FROM uploads
    WHERE tenant = %(tenant)s AND id = ANY (%(ids)s)
      AND coalesce(expires_at <= clock_timestamp() - interval '1 day', false)
    RETURNING id
)
SELECT id FROM removed
UNION ALL
SELECT id FROM ended;
