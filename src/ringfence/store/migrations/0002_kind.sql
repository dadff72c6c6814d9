-- How an interface's packets come through its host: until now all were routed.
ALTER TABLE interface ADD COLUMN kind TEXT NOT NULL DEFAULT 'routed' CHECK (kind IN ('routed', 'bridged', 'self'));
