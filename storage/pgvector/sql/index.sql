-- The vector index. Every statement names the tenant and goes by the first columns of the primary key; the
-- one that goes over all tenants calls a function.

-- name: insert_vectors
-- Puts vectors in, in place of those under their numbers; they come one behind the other in one array.
INSERT INTO index_vectors (tenant, store, model, attachment, number, dimension, embedding)
SELECT
    %(tenant)s, %(store)s, %(model)s, %(attachment)s, c.number, %(dimension)s,
    (f.floats)[(c.place - 1) * %(dimension)s + 1 : c.place * %(dimension)s]::vector
FROM unnest(%(numbers)s::integer[]) WITH ORDINALITY c (number, place)
CROSS JOIN (SELECT %(floats)s::real[] AS floats) f
ON CONFLICT (tenant, store, model, attachment, number)
DO UPDATE SET dimension = excluded.dimension, embedding = excluded.embedding;

-- name: insert_words
-- Puts the words of the same chunks in.
INSERT INTO index_words (tenant, store, model, attachment, number, words)
SELECT %(tenant)s, %(store)s, %(model)s, %(attachment)s, c.number, c.words::tsvector
FROM unnest(%(numbers)s::integer[], %(words)s::text[]) c (number, words)
ON CONFLICT (tenant, store, model, attachment, number) DO UPDATE SET words = excluded.words;

-- name: by_vector
-- The nearest chunks of a store: all of its vectors are looked at, so none is missed.
SELECT v.attachment, v.number, 1 - (v.embedding <=> %(floats)s::real[]::vector) AS score
FROM index_vectors v
WHERE v.tenant = %(tenant)s AND v.store = %(store)s AND v.model = %(model)s
  AND v.dimension = %(dimension)s
ORDER BY v.embedding <=> %(floats)s::real[]::vector, v.attachment, v.number
LIMIT %(limit)s;

-- name: by_vector_in
-- The nearest chunks of some attachments.
SELECT v.attachment, v.number, 1 - (v.embedding <=> %(floats)s::real[]::vector) AS score
FROM index_vectors v
WHERE v.tenant = %(tenant)s AND v.store = %(store)s AND v.model = %(model)s
  AND v.attachment = ANY(%(attachments)s) AND v.dimension = %(dimension)s
ORDER BY v.embedding <=> %(floats)s::real[]::vector, v.attachment, v.number
LIMIT %(limit)s;

-- name: by_words
-- The chunks with any of the words. Each word counts by how rare it is in what is searched, and by how often
-- a chunk has it, the first time most. OFFSET 0: the chunks are read once, not once for each word.
WITH searched AS MATERIALIZED (
    SELECT count(*) AS total
    FROM index_words
    WHERE tenant = %(tenant)s AND store = %(store)s AND model = %(model)s
), found AS MATERIALIZED (
    SELECT w.attachment, w.number, h.place, h.weight
    FROM index_words w
    CROSS JOIN LATERAL (
        SELECT q.place, ts_rank(w.words, q.query, 1) AS weight
        FROM unnest(%(words)s::tsquery[]) WITH ORDINALITY q (query, place)
        WHERE w.words @@ q.query
        OFFSET 0
    ) h
    WHERE w.tenant = %(tenant)s AND w.store = %(store)s AND w.model = %(model)s
), rare AS MATERIALIZED (
    SELECT f.place, ln(1 + (s.total - count(*) + 0.5::float8) / (count(*) + 0.5::float8)) AS weight
    FROM found f
    CROSS JOIN searched s
    GROUP BY f.place, s.total
)
SELECT f.attachment, f.number, sum(f.weight * r.weight) AS score
FROM found f
JOIN rare r USING (place)
GROUP BY f.attachment, f.number
ORDER BY score DESC, f.attachment, f.number
LIMIT %(limit)s;

-- name: by_words_in
-- The same among some attachments.
WITH searched AS MATERIALIZED (
    SELECT count(*) AS total
    FROM index_words
    WHERE tenant = %(tenant)s AND store = %(store)s AND model = %(model)s
      AND attachment = ANY(%(attachments)s)
), found AS MATERIALIZED (
    SELECT w.attachment, w.number, h.place, h.weight
    FROM index_words w
    CROSS JOIN LATERAL (
        SELECT q.place, ts_rank(w.words, q.query, 1) AS weight
        FROM unnest(%(words)s::tsquery[]) WITH ORDINALITY q (query, place)
        WHERE w.words @@ q.query
        OFFSET 0
    ) h
    WHERE w.tenant = %(tenant)s AND w.store = %(store)s AND w.model = %(model)s
      AND w.attachment = ANY(%(attachments)s)
), rare AS MATERIALIZED (
    SELECT f.place, ln(1 + (s.total - count(*) + 0.5::float8) / (count(*) + 0.5::float8)) AS weight
    FROM found f
    CROSS JOIN searched s
    GROUP BY f.place, s.total
)
SELECT f.attachment, f.number, sum(f.weight * r.weight) AS score
FROM found f
JOIN rare r USING (place)
GROUP BY f.attachment, f.number
ORDER BY score DESC, f.attachment, f.number
LIMIT %(limit)s;

-- name: remove_lot
-- Removes some chunks of attachments, of whichever model: nobody comes back for those of the one before. Returns
-- how many it saw, and how many of these it removed: the others somebody else had in hand. Models are found one
-- by one, from the end that is removed last: what is gone stands in the way for as long as any snapshot sees it.
-- Chunks are removed by where they are: a join may be planned so that it reads the whole store for each lot.
WITH RECURSIVE models (model) AS (
    SELECT (
        SELECT model
        FROM index_vectors
        WHERE tenant = %(tenant)s AND store = %(store)s
        ORDER BY model DESC
        LIMIT 1
    )
    UNION ALL
    SELECT (
        SELECT v.model
        FROM index_vectors v
        WHERE v.tenant = %(tenant)s AND v.store = %(store)s AND v.model < m.model
        ORDER BY v.model DESC
        LIMIT 1
    )
    FROM models m
    WHERE m.model IS NOT NULL
), lot AS MATERIALIZED (
    SELECT m.model, c.attachment, c.number, c.ctid AS place
    FROM models m
    CROSS JOIN unnest(%(attachments)s::text[]) a (attachment)
    CROSS JOIN LATERAL (
        SELECT v.attachment, v.number, v.ctid
        FROM index_vectors v
        WHERE v.tenant = %(tenant)s AND v.store = %(store)s AND v.model = m.model
          AND v.attachment = a.attachment
        OFFSET 0
    ) c
    LIMIT %(limit)s
), lot_of_words AS MATERIALIZED (
    SELECT c.ctid AS place
    FROM lot l
    CROSS JOIN LATERAL (
        SELECT w.ctid
        FROM index_words w
        WHERE w.tenant = %(tenant)s AND w.store = %(store)s AND w.model = l.model
          AND w.attachment = l.attachment AND w.number = l.number
        OFFSET 0
    ) c
), removed AS (
    DELETE FROM index_vectors
    WHERE tenant = %(tenant)s AND ctid = ANY (ARRAY(SELECT place FROM lot))
    RETURNING number
), removed_words AS (
    DELETE FROM index_words
    WHERE tenant = %(tenant)s AND ctid = ANY (ARRAY(SELECT place FROM lot_of_words))
)
SELECT (SELECT count(*) FROM lot), (SELECT count(*) FROM removed);

-- name: count
-- How many chunks of an attachment are there.
SELECT count(*) FROM index_vectors
WHERE tenant = %(tenant)s AND store = %(store)s AND model = %(model)s
  AND attachment = %(attachment)s;

-- name: clear
-- Removes everything of all tenants.
SELECT * FROM holdfast_clear_index();
