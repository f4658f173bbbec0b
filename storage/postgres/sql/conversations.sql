-- Conversations: names for places in threads. What begins and ends a turn is in writing.sql, what removes
-- one in removal.sql. Where a write may not be done, it returns no row, and it waits for nobody.

-- name: create_conversation
-- Writes a conversation, a thread of its own and its first items.
WITH begun AS (
    INSERT INTO threads (tenant, id, root_id, tip, length)
    SELECT %(tenant)s, %(new_thread)s, %(new_thread)s, %(count)s, %(count)s
), written AS (
    INSERT INTO items (
        tenant, thread_id, position, id, response_id, side, type, call_id, item, replay
    )
    SELECT
        %(tenant)s, %(new_thread)s, i.number - 1, i.id, %(id)s, 'input',
        i.type, i.call_id, i.item, i.replay
    FROM unnest(
        %(item_ids)b::text[], %(types)b::text[], %(call_ids)b::text[],
        %(items)b::bytea[], %(replays)b::bytea[]
    ) WITH ORDINALITY AS i (id, type, call_id, item, replay, number)
)
INSERT INTO conversations (tenant, id, thread_id, position, change, metadata)
SELECT %(tenant)s, %(id)s, %(new_thread)s, %(count)s, %(change)s, %(metadata)b
RETURNING id, floor(extract(epoch FROM created_at))::bigint, metadata;

-- name: get_conversation
-- One conversation.
SELECT id, floor(extract(epoch FROM created_at))::bigint, metadata
FROM conversations
WHERE tenant = %(tenant)s AND id = %(id)s;

-- name: update_conversation
-- Puts metadata in the place of others.
UPDATE conversations
SET metadata = %(metadata)b
WHERE tenant = %(tenant)s AND id = %(id)s
RETURNING id, floor(extract(epoch FROM created_at))::bigint, metadata;

-- name: list_conversations_asc
-- A page from the oldest on; each row starts with whether the cursor is known, id NULL if it is empty.
WITH cursor AS (
    SELECT created_at, id FROM conversations WHERE tenant = %(tenant)s AND id = %(after)s
), place AS (  -- computed here: row-level security lets only bare values reach the index
    SELECT
        coalesce((SELECT created_at FROM cursor), '-infinity') AS created_at,
        coalesce(%(after)s, '') AS id
), page AS (
    SELECT created_at, id, metadata
    FROM conversations
    WHERE tenant = %(tenant)s
      AND (created_at, id) > ((SELECT created_at FROM place), (SELECT id FROM place))
    ORDER BY created_at, id
    LIMIT %(limit)s
)
SELECT
    %(after)s::text IS NULL OR EXISTS (SELECT FROM cursor),
    p.id, floor(extract(epoch FROM p.created_at))::bigint, p.metadata
FROM (SELECT 1) one
LEFT JOIN page p ON true
ORDER BY p.created_at, p.id;

-- name: list_conversations_desc
-- The same from the newest on.
WITH cursor AS (
    SELECT created_at, id FROM conversations WHERE tenant = %(tenant)s AND id = %(after)s
), place AS (
    SELECT
        coalesce((SELECT created_at FROM cursor), 'infinity') AS created_at,
        coalesce(%(after)s, '') AS id
), page AS (
    SELECT created_at, id, metadata
    FROM conversations
    WHERE tenant = %(tenant)s
      AND (created_at, id) < ((SELECT created_at FROM place), (SELECT id FROM place))
    ORDER BY created_at DESC, id DESC
    LIMIT %(limit)s
)
SELECT
    %(after)s::text IS NULL OR EXISTS (SELECT FROM cursor),
    p.id, floor(extract(epoch FROM p.created_at))::bigint, p.metadata
FROM (SELECT 1) one
LEFT JOIN page p ON true
ORDER BY p.created_at DESC, p.id DESC;

-- name: load_conversation
-- Where a conversation stands, and a row for each item in order, or one with type NULL; none of them where
-- they are not wanted, or while a response of it is not finished.
-- Only the newest items have what is sent of them, up to so many bytes; the others how much that would be.
WITH RECURSIVE place AS (
    SELECT
        thread_id, position, change,
        EXISTS (
            SELECT FROM runs r WHERE r.tenant = %(tenant)s AND r.response_id = c.change OFFSET 0
        ) AS busy
    FROM conversations c
    WHERE tenant = %(tenant)s AND id = %(id)s
), chain AS (
    SELECT t.id, t.root_id, t.parent_id, t.parent_length, p.position AS until
    FROM place p
    CROSS JOIN LATERAL (
        SELECT id, root_id, parent_id, parent_length
        FROM threads
        WHERE tenant = %(tenant)s AND id = p.thread_id AND %(wanted)s AND NOT p.busy
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
        WHERE tenant = %(tenant)s AND thread_id = c.id AND position < c.until AND NOT dropped
        OFFSET 0
    ) i
)
SELECT
    p.thread_id, p.position, p.change, p.busy,
    (SELECT root_id FROM chain LIMIT 1),
    h.type, h.call_id, CASE WHEN h.fits THEN h.replay END, h.output, h.position,
    CASE WHEN h.fits THEN 0 ELSE coalesce(octet_length(h.replay), 0) END
FROM place p
LEFT JOIN history h ON true
ORDER BY h.position;

-- name: add_items
-- Appends items if the conversation is still where it was seen: to its thread, or to a branch of it where
-- something else stands behind that place.
WITH held AS (
    SELECT id
    FROM conversations
    WHERE tenant = %(tenant)s AND id = %(id)s AND thread_id = %(after_thread)s
      AND position = %(after_position)s AND change = %(seen)s
    FOR NO KEY UPDATE SKIP LOCKED
), parent AS (
    SELECT id, root_id
    FROM threads
    WHERE tenant = %(tenant)s AND id = %(after_thread)s AND EXISTS (SELECT FROM held)
    FOR KEY SHARE
), free AS (
    SELECT id
    FROM threads
    WHERE tenant = %(tenant)s AND id = %(after_thread)s AND tip = %(after_position)s
      AND writer IS NULL AND EXISTS (SELECT FROM held)
    FOR NO KEY UPDATE SKIP LOCKED
), claimed AS (
    UPDATE threads
    SET tip = length + %(count)s, length = length + %(count)s
    WHERE tenant = %(tenant)s AND id = (SELECT id FROM free)
    RETURNING id, length
), branched AS (
    INSERT INTO threads (tenant, id, root_id, parent_id, parent_length, tip, length)
    SELECT
        %(tenant)s, %(new_thread)s, p.root_id, %(after_thread)s, %(after_position)s,
        %(after_position)s + %(count)s, %(after_position)s + %(count)s
    FROM parent p
    WHERE NOT EXISTS (SELECT FROM claimed)
    RETURNING id, length
), place AS (
    SELECT id, length FROM claimed UNION ALL SELECT id, length FROM branched
), written AS (
    INSERT INTO items (
        tenant, thread_id, position, id, response_id, side, type, call_id, item, replay
    )
    SELECT
        %(tenant)s, p.id, p.length - %(count)s + i.number - 1, i.id, %(id)s, 'input',
        i.type, i.call_id, i.item, i.replay
    FROM place p
    CROSS JOIN unnest(
        %(item_ids)b::text[], %(types)b::text[], %(call_ids)b::text[],
        %(items)b::bytea[], %(replays)b::bytea[]
    ) WITH ORDINALITY AS i (id, type, call_id, item, replay, number)
)
UPDATE conversations
SET thread_id = (SELECT id FROM place), position = (SELECT length FROM place), change = %(change)s
WHERE tenant = %(tenant)s AND id = (SELECT id FROM held) AND EXISTS (SELECT FROM place)
RETURNING id;

-- name: added_before
-- Whether this very addition was the last: for one whose answer was lost.
SELECT id
FROM conversations
WHERE tenant = %(tenant)s AND id = %(id)s AND change = %(change)s;

-- name: list_conversation_items_asc
-- A page of the items; each row starts with whether the cursor is known, id NULL if it is empty; no row
-- if there is no such conversation.
-- As many items as go into so many bytes, one at least; each row ends with how many there would be.
WITH RECURSIVE place AS (
    SELECT thread_id, position FROM conversations WHERE tenant = %(tenant)s AND id = %(id)s
), chain AS (
    SELECT t.id, t.parent_id, t.parent_length, p.position AS until
    FROM place p
    CROSS JOIN LATERAL (
        SELECT id, parent_id, parent_length
        FROM threads
        WHERE tenant = %(tenant)s AND id = p.thread_id
        OFFSET 0
    ) t
    UNION ALL
    SELECT p.id, p.parent_id, p.parent_length, least(c.until, c.parent_length)
    FROM chain c
    CROSS JOIN LATERAL (
        SELECT id, parent_id, parent_length
        FROM threads
        WHERE tenant = %(tenant)s AND id = c.parent_id
        OFFSET 0
    ) p
), named AS MATERIALIZED (
    SELECT thread_id, position
    FROM items
    WHERE tenant = %(tenant)s AND id = %(after)s AND NOT dropped
), cursor AS (  -- the last of equal ids, so that following it ends
    SELECT max(n.position) AS position
    FROM named n
    JOIN chain c ON c.id = n.thread_id AND n.position < c.until
), page AS (
    SELECT i.position, i.id, i.item
    FROM chain c
    CROSS JOIN LATERAL (
        SELECT position, id, item
        FROM items
        WHERE tenant = %(tenant)s AND thread_id = c.id AND position < c.until
          AND position > coalesce((SELECT position FROM cursor), -1) AND NOT dropped
        ORDER BY position
        LIMIT %(limit)s
    ) i
    ORDER BY i.position
    LIMIT %(limit)s
), summed AS (
    SELECT
        position, id, item,
        sum(octet_length(item)) OVER (ORDER BY position) AS upto,
        count(*) OVER () AS found
    FROM page
)
SELECT %(after)s::text IS NULL OR cursor.position IS NOT NULL, p.id, p.item, p.found
FROM place
CROSS JOIN cursor
LEFT JOIN summed p ON p.upto <= %(most)s OR p.upto = octet_length(p.item)
ORDER BY p.position;

-- name: list_conversation_items_desc
-- The same from the last item on.
WITH RECURSIVE place AS (
    SELECT thread_id, position FROM conversations WHERE tenant = %(tenant)s AND id = %(id)s
), chain AS (
    SELECT t.id, t.parent_id, t.parent_length, p.position AS until
    FROM place p
    CROSS JOIN LATERAL (
        SELECT id, parent_id, parent_length
        FROM threads
        WHERE tenant = %(tenant)s AND id = p.thread_id
        OFFSET 0
    ) t
    UNION ALL
    SELECT p.id, p.parent_id, p.parent_length, least(c.until, c.parent_length)
    FROM chain c
    CROSS JOIN LATERAL (
        SELECT id, parent_id, parent_length
        FROM threads
        WHERE tenant = %(tenant)s AND id = c.parent_id
        OFFSET 0
    ) p
), named AS MATERIALIZED (
    SELECT thread_id, position
    FROM items
    WHERE tenant = %(tenant)s AND id = %(after)s AND NOT dropped
), cursor AS (
    SELECT min(n.position) AS position
    FROM named n
    JOIN chain c ON c.id = n.thread_id AND n.position < c.until
), page AS (
    SELECT i.position, i.id, i.item
    FROM chain c
    CROSS JOIN LATERAL (
        SELECT position, id, item
        FROM items
        WHERE tenant = %(tenant)s AND thread_id = c.id
          AND position < least(c.until, (SELECT position FROM cursor)) AND NOT dropped
        ORDER BY position DESC
        LIMIT %(limit)s
    ) i
    ORDER BY i.position DESC
    LIMIT %(limit)s
), summed AS (
    SELECT
        position, id, item,
        sum(octet_length(item)) OVER (ORDER BY position DESC) AS upto,
        count(*) OVER () AS found
    FROM page
)
SELECT %(after)s::text IS NULL OR cursor.position IS NOT NULL, p.id, p.item, p.found
FROM place
CROSS JOIN cursor
LEFT JOIN summed p ON p.upto <= %(most)s OR p.upto = octet_length(p.item)
ORDER BY p.position DESC;

-- name: get_conversation_item
-- The newest item of an id in the conversation.
WITH RECURSIVE place AS (
    SELECT thread_id, position FROM conversations WHERE tenant = %(tenant)s AND id = %(id)s
), chain AS (
    SELECT t.id, t.parent_id, t.parent_length, p.position AS until
    FROM place p
    CROSS JOIN LATERAL (
        SELECT id, parent_id, parent_length
        FROM threads
        WHERE tenant = %(tenant)s AND id = p.thread_id
        OFFSET 0
    ) t
    UNION ALL
    SELECT p.id, p.parent_id, p.parent_length, least(c.until, c.parent_length)
    FROM chain c
    CROSS JOIN LATERAL (
        SELECT id, parent_id, parent_length
        FROM threads
        WHERE tenant = %(tenant)s AND id = c.parent_id
        OFFSET 0
    ) p
), named AS MATERIALIZED (
    SELECT thread_id, position, item
    FROM items
    WHERE tenant = %(tenant)s AND id = %(item_id)s AND NOT dropped
)
SELECT n.item
FROM named n
JOIN chain c ON c.id = n.thread_id AND n.position < c.until
ORDER BY n.position DESC
LIMIT 1;

-- name: delete_conversation_item
-- Takes every item of an id out of the conversation: removed, or dropped where a response still shows it.
-- That response is held, so that it is not removed meanwhile and leaves the item behind.
WITH RECURSIVE place AS (
    SELECT thread_id, position FROM conversations WHERE tenant = %(tenant)s AND id = %(id)s
), chain AS (
    SELECT t.id, t.parent_id, t.parent_length, p.position AS until
    FROM place p
    CROSS JOIN LATERAL (
        SELECT id, parent_id, parent_length
        FROM threads
        WHERE tenant = %(tenant)s AND id = p.thread_id
        OFFSET 0
    ) t
    UNION ALL
    SELECT p.id, p.parent_id, p.parent_length, least(c.until, c.parent_length)
    FROM chain c
    CROSS JOIN LATERAL (
        SELECT id, parent_id, parent_length
        FROM threads
        WHERE tenant = %(tenant)s AND id = c.parent_id
        OFFSET 0
    ) p
), named AS MATERIALIZED (
    SELECT thread_id, position, response_id
    FROM items
    WHERE tenant = %(tenant)s AND id = %(item_id)s AND NOT dropped
), ours AS (
    SELECT n.thread_id, n.position, n.response_id
    FROM named n
    JOIN chain c ON c.id = n.thread_id AND n.position < c.until
), shown AS (
    SELECT id
    FROM responses
    WHERE tenant = %(tenant)s AND id = ANY (ARRAY(SELECT response_id FROM ours))
    ORDER BY id COLLATE "C"
    FOR KEY SHARE
), hidden AS (
    UPDATE items
    SET dropped = true
    WHERE tenant = %(tenant)s AND id = %(item_id)s
      AND thread_id = ANY (ARRAY(SELECT thread_id FROM ours))
      AND position = ANY (ARRAY(SELECT position FROM ours))
      AND response_id = ANY (ARRAY(SELECT id FROM shown))
), removed AS (
    DELETE FROM items
    WHERE tenant = %(tenant)s AND id = %(item_id)s
      AND thread_id = ANY (ARRAY(SELECT thread_id FROM ours))
      AND position = ANY (ARRAY(SELECT position FROM ours))
      AND response_id <> ALL (ARRAY(SELECT id FROM shown))
)
SELECT count(*) FROM ours HAVING count(*) > 0;
