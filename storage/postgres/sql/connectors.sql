-- Connectors, by tenant and id or label.

-- name: add_connector
-- Adds a connector, unless its label or id is there.
INSERT INTO connectors (tenant, id, label, fields, sealed, revision)
SELECT %(tenant)s, %(id)s, %(label)s, %(fields)s, %(sealed)s, %(revision)s
ON CONFLICT DO NOTHING;

-- name: get_connector
-- One connector.
SELECT id, label, fields, sealed, revision
FROM connectors
WHERE tenant = %(tenant)s AND id = %(id)s;

-- name: find_connector
-- The connector with a label.
SELECT id, label, fields, sealed, revision
FROM connectors
WHERE tenant = %(tenant)s AND label = %(label)s AND label > '';

-- name: replace_connector
-- Writes a connector that nobody has changed meanwhile (but for an attempt whose answer was lost).
UPDATE connectors
SET label = %(label)s, fields = %(fields)s, sealed = %(sealed)s, revision = %(revision)s
WHERE tenant = %(tenant)s AND id = %(id)s AND revision IN (%(before)s, %(revision)s)
RETURNING id;

-- name: delete_connector
-- Removes a connector.
DELETE FROM connectors WHERE tenant = %(tenant)s AND id = %(id)s RETURNING id;

-- name: list_connectors_asc
-- A page from the oldest on; each row starts with whether the cursor is known, id NULL if it is empty.
WITH cursor AS (
    SELECT created_at, id FROM connectors WHERE tenant = %(tenant)s AND id = %(after)s
), place AS (  -- computed here: row-level security lets only bare values reach the index
    SELECT
        coalesce((SELECT created_at FROM cursor), '-infinity') AS created_at,
        coalesce(%(after)s, '') AS id
), page AS (
    SELECT created_at, id, label, fields, sealed, revision
    FROM connectors
    WHERE tenant = %(tenant)s AND created_at > '-infinity'
      AND (created_at, id) > ((SELECT created_at FROM place), (SELECT id FROM place))
    ORDER BY created_at, id
    LIMIT %(limit)s
)
SELECT
    %(after)s::text IS NULL OR EXISTS (SELECT FROM cursor),
    p.id, p.label, p.fields, p.sealed, p.revision
FROM (SELECT 1) one
LEFT JOIN page p ON true
ORDER BY p.created_at, p.id;

-- name: list_connectors_desc
-- A page from the newest on; otherwise as list_connectors_asc.
WITH cursor AS (
    SELECT created_at, id FROM connectors WHERE tenant = %(tenant)s AND id = %(after)s
), place AS (  -- computed here: row-level security lets only bare values reach the index
    SELECT
        coalesce((SELECT created_at FROM cursor), 'infinity') AS created_at,
        coalesce(%(after)s, '') AS id
), page AS (
    SELECT created_at, id, label, fields, sealed, revision
    FROM connectors
    WHERE tenant = %(tenant)s AND created_at > '-infinity'
      AND (created_at, id) < ((SELECT created_at FROM place), (SELECT id FROM place))
    ORDER BY created_at DESC, id DESC
    LIMIT %(limit)s
)
SELECT
    %(after)s::text IS NULL OR EXISTS (SELECT FROM cursor),
    p.id, p.label, p.fields, p.sealed, p.revision
FROM (SELECT 1) one
LEFT JOIN page p ON true
ORDER BY p.created_at DESC, p.id DESC;
