-- Prompt templates. Each statement names the tenant and goes by key, as in reading.sql.

-- name: add_prompt
-- A prompt with its first version; nothing where an attempt whose answer was lost has written it.
WITH prompt AS (
    INSERT INTO prompts (tenant, id, head)
    SELECT %(tenant)s, %(id)s, %(head)s
    ON CONFLICT DO NOTHING
    RETURNING id
)
INSERT INTO prompt_versions (tenant, prompt_id, version, nonce, body)
SELECT %(tenant)s, prompt.id, 1, '', %(body)s
FROM prompt;

-- name: add_prompt_version
-- The next version of a prompt that there is, unless one has been written under this nonce.
WITH prompt AS (
    UPDATE prompts
    SET last_version = last_version + 1,
        default_version = CASE WHEN %(default)s THEN last_version + 1 ELSE default_version END
    WHERE tenant = %(tenant)s AND id = %(id)s
      AND NOT EXISTS (
          SELECT FROM prompt_versions
          WHERE tenant = %(tenant)s AND prompt_id = %(id)s AND nonce = %(nonce)s
      )
    RETURNING id, last_version
)
INSERT INTO prompt_versions (tenant, prompt_id, version, nonce, body)
SELECT %(tenant)s, prompt.id, prompt.last_version, %(nonce)s, %(body)s
FROM prompt;

-- name: version_of_nonce
-- The number of the version that was written under a nonce.
SELECT version
FROM prompt_versions
WHERE tenant = %(tenant)s AND prompt_id = %(id)s AND nonce = %(nonce)s;

-- name: update_prompt
-- Another head, another default version that there is.
UPDATE prompts
SET head = coalesce(%(head)s, head),
    default_version = coalesce(%(version)s::bigint, default_version)
WHERE tenant = %(tenant)s AND id = %(id)s
  AND (
      %(version)s::bigint IS NULL
      OR EXISTS (
          SELECT FROM prompt_versions
          WHERE tenant = %(tenant)s AND prompt_id = %(id)s AND version = %(version)s::bigint
      )
  )
RETURNING id;

-- name: get_prompt
-- A prompt at a version, its default one if none is named.
WITH prompt AS (
    SELECT id, created_at, default_version, head
    FROM prompts
    WHERE tenant = %(tenant)s AND id = %(id)s
)
SELECT
    p.id, floor(extract(epoch FROM p.created_at))::bigint, p.default_version, p.head,
    v.version, floor(extract(epoch FROM v.created_at))::bigint, v.body
FROM prompt p
CROSS JOIN LATERAL (
    SELECT version, created_at, body
    FROM prompt_versions
    WHERE tenant = %(tenant)s AND prompt_id = p.id
      AND version = coalesce(%(version)s::bigint, p.default_version)
    OFFSET 0
) v;

-- name: list_prompts_asc
-- A page from the oldest on; each row starts with whether the cursor is known, id NULL if it is empty.
WITH cursor AS (
    SELECT created_at, id FROM prompts WHERE tenant = %(tenant)s AND id = %(after)s
), place AS (
    SELECT
        coalesce((SELECT created_at FROM cursor), '-infinity') AS created_at,
        coalesce(%(after)s, '') AS id
), page AS (
    SELECT created_at, id, default_version, head
    FROM prompts
    WHERE tenant = %(tenant)s
      AND (created_at, id) > ((SELECT created_at FROM place), (SELECT id FROM place))
    ORDER BY created_at, id
    LIMIT %(limit)s
), versions AS (
    SELECT
        p.created_at AS order_by, p.id, floor(extract(epoch FROM p.created_at))::bigint AS created,
        p.default_version, p.head,
        v.version, floor(extract(epoch FROM v.created_at))::bigint AS version_created, v.body
    FROM page p
    CROSS JOIN LATERAL (
        SELECT version, created_at, body
        FROM prompt_versions
        WHERE tenant = %(tenant)s AND prompt_id = p.id AND version = p.default_version
        OFFSET 0
    ) v
)
SELECT
    %(after)s::text IS NULL OR EXISTS (SELECT FROM cursor),
    v.id, v.created, v.default_version, v.head, v.version, v.version_created, v.body
FROM (SELECT 1) one
LEFT JOIN versions v ON true
ORDER BY v.order_by, v.id;

-- name: list_prompts_desc
-- A page from the newest on; otherwise as list_prompts_asc.
WITH cursor AS (
    SELECT created_at, id FROM prompts WHERE tenant = %(tenant)s AND id = %(after)s
), place AS (
    SELECT
        coalesce((SELECT created_at FROM cursor), 'infinity') AS created_at,
        coalesce(%(after)s, '') AS id
), page AS (
    SELECT created_at, id, default_version, head
    FROM prompts
    WHERE tenant = %(tenant)s
      AND (created_at, id) < ((SELECT created_at FROM place), (SELECT id FROM place))
    ORDER BY created_at DESC, id DESC
    LIMIT %(limit)s
), versions AS (
    SELECT
        p.created_at AS order_by, p.id, floor(extract(epoch FROM p.created_at))::bigint AS created,
        p.default_version, p.head,
        v.version, floor(extract(epoch FROM v.created_at))::bigint AS version_created, v.body
    FROM page p
    CROSS JOIN LATERAL (
        SELECT version, created_at, body
        FROM prompt_versions
        WHERE tenant = %(tenant)s AND prompt_id = p.id AND version = p.default_version
        OFFSET 0
    ) v
)
SELECT
    %(after)s::text IS NULL OR EXISTS (SELECT FROM cursor),
    v.id, v.created, v.default_version, v.head, v.version, v.version_created, v.body
FROM (SELECT 1) one
LEFT JOIN versions v ON true
ORDER BY v.order_by DESC, v.id DESC;

-- name: list_prompt_versions_asc
-- A page of a prompt's versions above a number, version NULL if it is empty; no row without the prompt.
WITH prompt AS (
    SELECT id, created_at, default_version, head
    FROM prompts
    WHERE tenant = %(tenant)s AND id = %(id)s
), page AS (
    SELECT version, floor(extract(epoch FROM created_at))::bigint AS created, body
    FROM prompt_versions
    WHERE tenant = %(tenant)s AND prompt_id = %(id)s
      AND version > coalesce(%(number)s::bigint, 0)
    ORDER BY version
    LIMIT %(limit)s
)
SELECT
    p.id, floor(extract(epoch FROM p.created_at))::bigint, p.default_version, p.head,
    v.version, v.created, v.body
FROM prompt p
LEFT JOIN page v ON true
ORDER BY v.version;

-- name: list_prompt_versions_desc
-- The same from the newest on, below a number.
WITH prompt AS (
    SELECT id, created_at, default_version, head
    FROM prompts
    WHERE tenant = %(tenant)s AND id = %(id)s
), page AS (
    SELECT version, floor(extract(epoch FROM created_at))::bigint AS created, body
    FROM prompt_versions
    WHERE tenant = %(tenant)s AND prompt_id = %(id)s
      AND version < coalesce(%(number)s::bigint, 9223372036854775807)
    ORDER BY version DESC
    LIMIT %(limit)s
)
SELECT
    p.id, floor(extract(epoch FROM p.created_at))::bigint, p.default_version, p.head,
    v.version, v.created, v.body
FROM prompt p
LEFT JOIN page v ON true
ORDER BY v.version DESC;

-- name: delete_prompt
-- A prompt with its versions.
WITH versions AS (
    DELETE FROM prompt_versions WHERE tenant = %(tenant)s AND prompt_id = %(id)s
)
DELETE FROM prompts WHERE tenant = %(tenant)s AND id = %(id)s RETURNING id;
