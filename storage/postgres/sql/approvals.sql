-- Requests for consent. They are written, and their answers taken, by the statements of writing.sql; here is
-- what is done beside those. Of several, rows are locked in the order of their ids.

-- name: find_approvals
-- Those of these requests that there are.
SELECT a.id, a.request, a.answered_by
FROM (SELECT DISTINCT unnest(%(answers)b::text[]) AS id) wanted
CROSS JOIN LATERAL (
    SELECT id, request, answered_by
    FROM approvals
    WHERE tenant = %(tenant)s AND id = wanted.id
    OFFSET 0
) a;

-- name: take_answers
-- Takes the answers to all of these requests that there are, or to none; returns who took an answer before.
WITH asked AS (
    SELECT id, answered_by
    FROM approvals
    WHERE tenant = %(tenant)s AND id = ANY (%(answers)b::text[])
    ORDER BY id
    FOR UPDATE
), taken AS (
    UPDATE approvals
    SET answered_by = %(id)s
    WHERE tenant = %(tenant)s AND id = ANY (%(answers)b::text[])
      AND NOT EXISTS (SELECT FROM asked WHERE answered_by <> %(id)s)
)
SELECT id FROM asked WHERE answered_by <> %(id)s ORDER BY id;

-- name: free_answers
-- Gives back what a response took.
UPDATE approvals SET answered_by = NULL WHERE tenant = %(tenant)s AND answered_by = %(id)s;
