-- What is read of responses and their threads. Each statement names the tenant, and each goes by key
-- whatever the planner believes of the tables: one row is looked up by a scalar subquery, several by a
-- LATERAL join with OFFSET 0, which the planner does not turn round.

-- name: load_context
-- The history that ends with a response: a row for each item in order, or one with type NULL.
-- Only the newest items have what is sent of them, up to so many bytes; the others how much that would be.
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
    SELECT
        i.position, i.type, i.call_id, i.replay, i.side = 'output' AS output,
        coalesce(
            sum(octet_length(i.replay)) OVER (ORDER BY i.position DESC ROWS UNBOUNDED PRECEDING), 0
        ) <= %(most)s AS fits
    FROM chain c
    CROSS JOIN LATERAL (
        SELECT position, type, call_id, replay, side
        FROM items
        WHERE tenant = %(tenant)s AND thread_id = c.id AND position < c.until
          AND (NOT dropped OR response_id = %(id)s)
        OFFSET 0
    ) i
)
SELECT
    r.status, r.thread_id, r.until,
    (SELECT root_id FROM chain LIMIT 1),
    h.type, h.call_id, CASE WHEN h.fits THEN h.replay END, h.output, h.position,
    CASE WHEN h.fits THEN 0 ELSE coalesce(octet_length(h.replay), 0) END
FROM response r
LEFT JOIN history h ON true
ORDER BY h.position;

-- name: get
-- One response with its output.
SELECT
    r.id, r.status, r.head,
    ARRAY(
        SELECT i.item
        FROM items i
        WHERE i.tenant = %(tenant)s AND i.thread_id = r.thread_id
          AND i.position >= r.output_start AND i.position < r.output_end
        ORDER BY i.position
    )
FROM responses r
WHERE r.tenant = %(tenant)s AND r.id = %(id)s;

-- name: list_responses_asc
-- A page from the oldest on; each row starts with whether the cursor is known, id NULL if it is empty.
-- As many as go into so many bytes, one at least; each row ends with how many there would be.
WITH cursor AS (
    SELECT created_at, id FROM responses WHERE tenant = %(tenant)s AND id = %(after)s
), place AS (  -- computed here: row-level security lets only bare values reach the index
    SELECT
        coalesce((SELECT created_at FROM cursor), '-infinity') AS created_at,
        coalesce(%(after)s, '') AS id
), page AS (
    SELECT created_at, id, status, head, thread_id, output_start, output_end
    FROM responses
    WHERE tenant = %(tenant)s
      AND (created_at, id) > ((SELECT created_at FROM place), (SELECT id FROM place))
      AND (%(model)s::text IS NULL OR model = %(model)s)
    ORDER BY created_at, id
    LIMIT %(limit)s
), sized AS (
    SELECT
        p.*,
        octet_length(p.head) + coalesce(
            (
                SELECT sum(octet_length(i.item))
                FROM items i
                WHERE i.tenant = %(tenant)s AND i.thread_id = p.thread_id
                  AND i.position >= p.output_start AND i.position < p.output_end
            ),
            0
        ) AS size
    FROM page p
), summed AS (
    SELECT
        *,
        sum(size) OVER (ORDER BY created_at, id) AS upto,
        count(*) OVER () AS found
    FROM sized
)
SELECT
    %(after)s::text IS NULL OR EXISTS (SELECT FROM cursor),
    p.id, p.status, p.head,
    ARRAY(
        SELECT i.item
        FROM items i
        WHERE i.tenant = %(tenant)s AND i.thread_id = p.thread_id
          AND i.position >= p.output_start AND i.position < p.output_end
        ORDER BY i.position
    ),
    p.found
FROM (SELECT 1) one
LEFT JOIN summed p ON p.upto <= %(most)s OR p.upto = p.size
ORDER BY p.created_at, p.id;

-- name: list_responses_desc
-- A page from the newest on; otherwise as list_responses_asc.
WITH cursor AS (
    SELECT created_at, id FROM responses WHERE tenant = %(tenant)s AND id = %(after)s
), place AS (  -- computed here: row-level security lets only bare values reach the index
    SELECT
        coalesce((SELECT created_at FROM cursor), 'infinity') AS created_at,
        coalesce(%(after)s, '') AS id
), page AS (
    SELECT created_at, id, status, head, thread_id, output_start, output_end
    FROM responses
    WHERE tenant = %(tenant)s
      AND (created_at, id) < ((SELECT created_at FROM place), (SELECT id FROM place))
      AND (%(model)s::text IS NULL OR model = %(model)s)
    ORDER BY created_at DESC, id DESC
    LIMIT %(limit)s
), sized AS (
    SELECT
        p.*,
        octet_length(p.head) + coalesce(
            (
                SELECT sum(octet_length(i.item))
                FROM items i
                WHERE i.tenant = %(tenant)s AND i.thread_id = p.thread_id
                  AND i.position >= p.output_start AND i.position < p.output_end
            ),
            0
        ) AS size
    FROM page p
), summed AS (
    SELECT
        *,
        sum(size) OVER (ORDER BY created_at DESC, id DESC) AS upto,
        count(*) OVER () AS found
    FROM sized
)
SELECT
    %(after)s::text IS NULL OR EXISTS (SELECT FROM cursor),
    p.id, p.status, p.head,
    ARRAY(
        SELECT i.item
        FROM items i
        WHERE i.tenant = %(tenant)s AND i.thread_id = p.thread_id
          AND i.position >= p.output_start AND i.position < p.output_end
        ORDER BY i.position
    ),
    p.found
FROM (SELECT 1) one
LEFT JOIN summed p ON p.upto <= %(most)s OR p.upto = p.size
ORDER BY p.created_at DESC, p.id DESC;

-- name: list_input_items_asc
-- A page of a response's own input; each row starts with whether the cursor is known, id NULL if it
-- is empty; no row if there is no such response.
-- As many items as go into so many bytes, one at least; each row ends with how many there would be.
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
), summed AS (
    SELECT
        position, id, item,
        sum(octet_length(item)) OVER (ORDER BY position) AS upto,
        count(*) OVER () AS found
    FROM page
)
SELECT %(after)s::text IS NULL OR place.position IS NOT NULL, p.id, p.item, p.found
FROM response
CROSS JOIN place
LEFT JOIN summed p ON p.upto <= %(most)s OR p.upto = octet_length(p.item)
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
), summed AS (
    SELECT
        position, id, item,
        sum(octet_length(item)) OVER (ORDER BY position DESC) AS upto,
        count(*) OVER () AS found
    FROM page
)
SELECT %(after)s::text IS NULL OR place.position IS NOT NULL, p.id, p.item, p.found
FROM response
CROSS JOIN place
LEFT JOIN summed p ON p.upto <= %(most)s OR p.upto = octet_length(p.item)
ORDER BY p.position DESC;

-- name: find_items
-- The newest item of each of several ids; without their bytes where these are more than so many, which each
-- row ends with.
WITH found AS (
    SELECT
        i.id, i.type, i.item, i.replay, i.call_id,
        sum(greatest(octet_length(i.item), octet_length(i.replay))) OVER () AS size
    FROM (SELECT DISTINCT unnest(%(item_ids)b::text[]) AS id) wanted
    CROSS JOIN LATERAL (
        SELECT id, type, item, replay, call_id
        FROM items
        WHERE tenant = %(tenant)s AND id = wanted.id AND NOT dropped
        ORDER BY created_at DESC, position DESC
        LIMIT 1
    ) i
)
SELECT
    id, type,
    CASE WHEN size <= %(most)s THEN item END,
    CASE WHEN size <= %(most)s THEN replay END,
    call_id, size
FROM found;

-- name: read_items
-- Items of the history that ends at a point, by their positions, which count on through branches; as find_items.
WITH RECURSIVE chain AS (
    SELECT id, parent_id, coalesce(parent_length, 0) AS start, %(until)s AS until
    FROM threads
    WHERE tenant = %(tenant)s AND id = %(thread)s
    UNION ALL
    SELECT p.id, p.parent_id, coalesce(p.parent_length, 0), least(c.until, c.start)
    FROM chain c
    CROSS JOIN LATERAL (
        SELECT id, parent_id, parent_length
        FROM threads
        WHERE tenant = %(tenant)s AND id = c.parent_id
        OFFSET 0
    ) p
), found AS (
    SELECT
        w.position, i.id, i.type, i.item, i.replay, i.call_id,
        sum(greatest(octet_length(i.item), octet_length(i.replay))) OVER () AS size
    FROM chain c
    JOIN unnest(%(positions)b::bigint[]) AS w (position)
        ON w.position >= c.start AND w.position < c.until
    CROSS JOIN LATERAL (
        SELECT id, type, item, replay, call_id
        FROM items
        WHERE tenant = %(tenant)s AND thread_id = c.id AND position = w.position
        OFFSET 0
    ) i
)
SELECT
    position, id, type,
    CASE WHEN size <= %(most)s THEN item END,
    CASE WHEN size <= %(most)s THEN replay END,
    call_id, size
FROM found;
