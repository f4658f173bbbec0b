-- What goes over all tenants: nothing but calls of functions of the migrations, which alone may.

-- name: set_tenant
-- Names the tenant of the statements that follow in this transaction; no other row is there for them.
SELECT set_config('holdfast.tenant', %(tenant)s, true);

-- name: limit_waiting
-- Bounds the wait for a lock in this transaction.
SELECT set_config('lock_timeout', %(milliseconds)s, true);

-- name: claim
-- Takes what waits and what was left.
SELECT * FROM holdfast_claim(%(worker)s, %(lease_seconds)s, %(queued)s, %(expired)s);

-- name: inherit
-- Takes what other lives of a worker left.
SELECT * FROM holdfast_inherit(%(name)s, %(worker)s, %(lease_seconds)s, %(limit)s);

-- name: renew
-- Prolongs leases; returns the places of those that are still good.
SELECT * FROM holdfast_renew(%(tenants)s, %(ids)s, %(tokens)s, %(lease_seconds)s);

-- name: cancelled
-- The leases of a worker whose cancel was asked for.
SELECT * FROM holdfast_cancelled(%(worker)s);

-- name: expired
-- Tenant and id of responses whose time has come.
SELECT * FROM holdfast_expired(%(limit)s);

-- name: dropped_blobs
-- Tenant and key of blobs that nothing needs.
SELECT * FROM holdfast_dropped_blobs(%(limit)s);

-- name: expired_files
-- Tenant and id of files and uploads whose time has come.
SELECT * FROM holdfast_expired_files(%(limit)s);

-- name: claim_ingestions
-- Takes what was left of ingestions, then what waits.
SELECT * FROM holdfast_claim_ingestions(%(worker)s, %(lease_seconds)s, %(limit)s);

-- name: renew_ingestions
-- Prolongs leases of ingestions; returns the places of those that are still good.
SELECT * FROM holdfast_renew_ingestions(%(tenants)s, %(attachments)s, %(tokens)s, %(lease_seconds)s);

-- name: ended_stores
-- Tenant and id of vector stores that are to be emptied.
SELECT * FROM holdfast_ended_stores(%(limit)s);

-- name: removals
-- Tenant, store and id of attachments that are to be removed from the index.
SELECT * FROM holdfast_removals(%(limit)s);

-- name: dropped_chunks
-- Tenant and id of attachments whose chunks are to be removed.
SELECT * FROM holdfast_dropped_chunks(%(limit)s);

-- name: completed_attachments
-- Tenant, store and id of completed attachments behind one.
SELECT * FROM holdfast_completed_attachments(%(tenant)s, %(attachment)s, %(limit)s);

-- name: waiting
-- How many responses and files wait.
SELECT * FROM holdfast_waiting();
