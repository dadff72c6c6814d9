-- Each line carries the hash of itself and the one before: a chain. Lines from before it have no hash.
ALTER TABLE audit ADD COLUMN number INTEGER;
ALTER TABLE audit ADD COLUMN actor_name TEXT;
ALTER TABLE audit ADD COLUMN hash TEXT;
UPDATE audit SET number = position;
CREATE UNIQUE INDEX audit_number ON audit (number);
CREATE INDEX audit_of_organisation ON audit (organisation, at);
