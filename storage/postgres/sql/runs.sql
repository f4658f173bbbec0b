-- What is asked of runs and event logs by tenant and id; what goes over all tenants is in gates.sql.

-- name: release
-- Puts a run back into the queue where it was; whoever had it has it no longer.
UPDATE runs
SET state = 'queued', owner = NULL, expires = NULL, token = token + 1, attempts = attempts - 1
WHERE tenant = %(tenant)s AND response_id = %(id)s AND token = %(token)s AND owner IS NOT NULL;

-- name: cancel
-- Notes that a run shall end, and holds it for what follows.
UPDATE runs SET cancel = true WHERE tenant = %(tenant)s AND response_id = %(id)s;

-- name: status
-- The status of a response.
SELECT status FROM responses WHERE tenant = %(tenant)s AND id = %(id)s;

-- name: take_queued
-- Hands a run to a worker if it still waits.
SELECT taken.*
FROM (
    SELECT response_id
    FROM runs
    WHERE tenant = %(tenant)s AND response_id = %(id)s AND owner IS NULL
) waiting
CROSS JOIN LATERAL
    holdfast_take(%(tenant)s, waiting.response_id, %(worker)s, %(lease_seconds)s) taken;

-- name: read_events
-- The batches that reach above an event, as many as go into so many bytes and one at least, a thousand at the most,
-- each with whether there is more after it; one row with `first` NULL if there is none, no row without response.
WITH response AS (
    SELECT status, streamed FROM responses WHERE tenant = %(tenant)s AND id = %(id)s
), page AS (
    SELECT
        first, last, frames,
        sum(octet_length(frames)) OVER (ORDER BY first) - octet_length(frames) AS before,
        lead(first) OVER (ORDER BY first) IS NOT NULL AS more,
        row_number() OVER (ORDER BY first) AS number
    FROM (
        SELECT first, last, frames
        FROM events
        WHERE tenant = %(tenant)s AND response_id = %(id)s
          AND first >= coalesce(
              (
                  SELECT max(first)
                  FROM events
                  WHERE tenant = %(tenant)s AND response_id = %(id)s AND first <= %(after)s + 1
              ),
              0
          )
          AND last > %(after)s
        ORDER BY first
        LIMIT 1001
    ) log
)
SELECT r.status, r.streamed, p.first, p.last, p.frames, p.more
FROM response r
LEFT JOIN page p ON (p.before = 0 OR p.before < %(limit)s) AND p.number <= 1000
ORDER BY p.first;
