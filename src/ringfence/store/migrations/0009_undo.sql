-- What undoes each revision, as JSON; NULL for those from before, and when it was forgotten with the history.
ALTER TABLE revision ADD COLUMN undo TEXT;
CREATE INDEX revision_with_undo ON revision (at) WHERE undo IS NOT NULL;

-- The change of an organisation that is undone at that time (seconds since the epoch) unless it is confirmed; NULL for none.
ALTER TABLE organisation ADD COLUMN trial_revision INTEGER;
ALTER TABLE organisation ADD COLUMN trial_ends_at INTEGER;
