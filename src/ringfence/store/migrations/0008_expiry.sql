-- When the server deletes a rule by itself, in seconds since the epoch; NULL for never.
ALTER TABLE rule ADD COLUMN expires_at INTEGER;
