-- When the last lease that was given up would have run out: until then what its owner sent to the index, and gave
-- up waiting for, may land there (docs/adr/0020). With the attachment and not with the ingestion, because it
-- may be completed by then. A worker of the release before does not write it.
ALTER TABLE attachments ADD COLUMN late_until timestamptz;
