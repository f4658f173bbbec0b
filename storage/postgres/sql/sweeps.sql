-- The statements that belong to no tenant: leases, the queue, retention. They run with
-- `holdfast.sweeps` on, under which the policies show runs, and of responses that they are there.

-- name: renew
-- Prolongs leases; returns those that are lost. A run that is being written at this moment is left for
-- the next time: waiting for it could be a deadlock, and it is in good hands.
WITH wanted AS (
    SELECT tenant, response_id, token
    FROM unnest(%(tenants)b::text[], %(ids)b::text[], %(tokens)b::bigint[])
        AS w (tenant, response_id, token)
), locked AS (
    SELECT u.tenant, u.response_id
    FROM wanted w
    CROSS JOIN LATERAL (
        SELECT tenant, response_id
        FROM runs
        WHERE tenant = w.tenant AND response_id = w.response_id AND token = w.token
          AND owner IS NOT NULL
        FOR NO KEY UPDATE SKIP LOCKED
    ) u
), renewed AS (
    UPDATE runs u
    SET lease_expires = clock_timestamp() + make_interval(secs => %(lease_seconds)s)
    FROM locked l
    WHERE u.tenant = l.tenant AND u.response_id = l.response_id
)
SELECT w.tenant, w.response_id, w.token
FROM wanted w
WHERE NOT EXISTS (
    SELECT FROM runs u
    WHERE u.tenant = w.tenant AND u.response_id = w.response_id AND u.token = w.token
      AND u.owner IS NOT NULL
);

-- name: claim_queued
-- Takes runs from the queue: of the tenant that would then have the fewest running, the oldest first.
WITH RECURSIVE tenants AS (
    (SELECT tenant FROM runs WHERE owner IS NULL ORDER BY tenant LIMIT 1)
    UNION ALL
    SELECT (
        SELECT u.tenant
        FROM runs u
        WHERE u.owner IS NULL AND u.tenant > t.tenant
        ORDER BY u.tenant
        LIMIT 1
    )
    FROM tenants t
    WHERE t.tenant IS NOT NULL
), waiting AS (
    SELECT
        t.tenant, q.response_id, q.queued_at,
        row_number() OVER (PARTITION BY t.tenant ORDER BY q.queued_at) + (
            SELECT count(*) FROM runs b WHERE b.tenant = t.tenant AND b.owner IS NOT NULL
        ) AS place
    FROM tenants t
    CROSS JOIN LATERAL (
        SELECT response_id, queued_at
        FROM runs
        WHERE tenant = t.tenant AND owner IS NULL
        ORDER BY queued_at
        LIMIT 4 * %(limit)s  -- other workers choose at this moment, too
    ) q
), chosen AS (
    SELECT u.tenant, u.response_id
    FROM waiting w
    JOIN runs u ON u.tenant = w.tenant AND u.response_id = w.response_id
    WHERE u.owner IS NULL
    ORDER BY w.place, w.queued_at
    LIMIT %(limit)s
    FOR UPDATE OF u SKIP LOCKED
)
UPDATE runs u
SET owner = %(worker)s, token = u.token + 1, attempts = u.attempts + 1,
    lease_expires = clock_timestamp() + make_interval(secs => %(lease_seconds)s)
FROM chosen c
JOIN responses r ON r.tenant = c.tenant AND r.id = c.response_id
WHERE u.tenant = c.tenant AND u.response_id = c.response_id
RETURNING
    u.tenant, u.response_id, u.token, u.attempts, u.background, r.streamed, u.cancel, true,
    r.head, u.work;

-- name: claim_expired
-- Takes runs whose lease ran out, the longest ago first.
WITH chosen AS (
    SELECT tenant, response_id
    FROM runs
    WHERE owner IS NOT NULL AND lease_expires < now()
    ORDER BY lease_expires
    LIMIT %(limit)s
    FOR UPDATE SKIP LOCKED
)
UPDATE runs u
SET owner = %(worker)s, token = u.token + 1, attempts = u.attempts + 1,
    lease_expires = clock_timestamp() + make_interval(secs => %(lease_seconds)s)
FROM chosen c
JOIN responses r ON r.tenant = c.tenant AND r.id = c.response_id
WHERE u.tenant = c.tenant AND u.response_id = c.response_id
RETURNING
    u.tenant, u.response_id, u.token, u.attempts, u.background, r.streamed, u.cancel, false,
    r.head, u.work;

-- name: inherit
-- Takes runs of owners whose name begins alike: earlier lives of the same worker.
WITH chosen AS (
    SELECT tenant, response_id
    FROM runs
    WHERE owner IS NOT NULL AND starts_with(owner, %(place)s) AND owner <> %(worker)s
    LIMIT %(limit)s
    FOR UPDATE SKIP LOCKED
)
UPDATE runs u
SET owner = %(worker)s, token = u.token + 1, attempts = u.attempts + 1,
    lease_expires = clock_timestamp() + make_interval(secs => %(lease_seconds)s)
FROM chosen c
JOIN responses r ON r.tenant = c.tenant AND r.id = c.response_id
WHERE u.tenant = c.tenant AND u.response_id = c.response_id
RETURNING
    u.tenant, u.response_id, u.token, u.attempts, u.background, r.streamed, u.cancel, false,
    r.head, u.work;

-- name: cancelled
-- The leases of a worker whose cancel was asked for.
SELECT tenant, response_id, token FROM runs WHERE owner = %(worker)s AND cancel;

-- name: expired
-- Finished responses whose time has come, the longest ago first.
SELECT tenant, id
FROM responses
WHERE expires_at < now() AND output_end IS NOT NULL
ORDER BY expires_at
LIMIT %(limit)s;
