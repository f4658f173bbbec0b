-- What `runs.py` asks of one tenant's runs and event logs. Each statement names the tenant.

-- name: append
-- Adds a batch to the log while the lease is good; returns a row if it is. The lock makes a takeover
-- wait, so that whoever takes over reads all that was written.
WITH held AS (
    SELECT response_id
    FROM runs
    WHERE tenant = %(tenant)s AND response_id = %(id)s AND token = %(token)s AND coalesce(owner, '') <> ''
    FOR SHARE
), logged AS (
    INSERT INTO events (tenant, response_id, first_number, last_number, frames)
    SELECT %(tenant)s, response_id, %(first)s, %(last)s, %(frames)b
    FROM held
    ON CONFLICT DO NOTHING
)
SELECT response_id FROM held;

-- name: read_events
-- Status, whether there is a log, whether there is more, and batches from `after` on: a row for each,
-- or one with NULLs. About `limit` bytes, one batch at least.
WITH response AS (
    SELECT id, streamed, output_end, status
    FROM responses
    WHERE tenant = %(tenant)s AND id = %(id)s
), start AS (
    SELECT coalesce(max(first_number), 0) AS number
    FROM events
    WHERE tenant = %(tenant)s AND response_id = %(id)s AND first_number <= %(after)s + 1
), ahead AS (
    SELECT first_number, last_number, frames
    FROM events
    WHERE tenant = %(tenant)s AND response_id = %(id)s
      AND first_number >= (SELECT number FROM start) AND last_number > %(after)s
    ORDER BY first_number
    LIMIT 257
), measured AS (
    SELECT
        first_number, last_number, frames,
        row_number() OVER places AS place,
        sum(octet_length(frames)) OVER places AS size
    FROM ahead
    WINDOW places AS (ORDER BY first_number)
), page AS (
    SELECT first_number, last_number, frames
    FROM measured
    WHERE place = 1 OR (size <= %(limit)s AND place <= 256)
)
SELECT
    CASE
        WHEN r.output_end IS NOT NULL THEN r.status
        WHEN (
            SELECT u.owner IS NULL
            FROM runs u
            WHERE u.tenant = %(tenant)s AND u.response_id = r.id
        ) THEN 'queued'
        ELSE 'in_progress'
    END,
    r.streamed,
    (SELECT count(*) FROM ahead) > (SELECT count(*) FROM page),
    p.first_number, p.last_number, p.frames
FROM response r
LEFT JOIN page p ON true
ORDER BY p.first_number;

-- name: release
-- Puts a run back into the queue: the attempt does not count, the lease is worth nothing any more.
UPDATE runs
SET owner = NULL, lease_expires = NULL, token = token + 1, attempts = attempts - 1
WHERE tenant = %(tenant)s AND response_id = %(id)s AND token = %(token)s AND coalesce(owner, '') <> ''
RETURNING response_id;

-- name: ask_cancel
-- Notes that a response shall end, and hands a queued one to the worker that asks. One row if there is
-- such a response: its status, and the claim if it was queued.
WITH run AS (
    SELECT response_id, owner
    FROM runs
    WHERE tenant = %(tenant)s AND response_id = %(id)s
    FOR UPDATE
), asked AS (
    UPDATE runs u
    SET cancel = true,
        owner = coalesce(u.owner, %(worker)s),
        lease_expires = CASE
            WHEN u.owner IS NULL
            THEN clock_timestamp() + make_interval(secs => %(lease_seconds)s)
            ELSE u.lease_expires
        END,
        token = u.token + CASE WHEN u.owner IS NULL THEN 1 ELSE 0 END,
        attempts = u.attempts + CASE WHEN u.owner IS NULL THEN 1 ELSE 0 END
    WHERE u.tenant = %(tenant)s AND u.response_id = (SELECT response_id FROM run)
    RETURNING u.token, u.attempts, u.background, u.work
)
SELECT
    CASE
        WHEN run.response_id IS NULL THEN r.status
        WHEN run.owner IS NULL THEN 'queued'
        ELSE 'in_progress'
    END,
    run.response_id IS NOT NULL AND run.owner IS NULL,
    a.token, a.attempts, a.background, r.streamed, r.head, a.work
FROM responses r
LEFT JOIN run ON true
LEFT JOIN asked a ON true
WHERE r.tenant = %(tenant)s AND r.id = %(id)s;

-- name: tenant_responses
-- Some responses of a tenant, the oldest first.
SELECT id FROM responses WHERE tenant = %(tenant)s ORDER BY created_at, id LIMIT %(limit)s;

-- name: empty_tenant
-- Removes what is left of a tenant that has no responses; returns how many threads there were.
WITH unkeyed AS (
    DELETE FROM idempotency_keys WHERE tenant = %(tenant)s
), unlogged AS (
    DELETE FROM events WHERE tenant = %(tenant)s
), emptied AS (
    DELETE FROM items WHERE tenant = %(tenant)s
), unthreaded AS (
    DELETE FROM threads WHERE tenant = %(tenant)s AND writer IS NULL RETURNING id
)
SELECT count(*) FROM unthreaded;
