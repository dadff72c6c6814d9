-- A removed organisation leaves its row and that of its default group, so that history can name it.
ALTER TABLE organisation ADD COLUMN removed_at INTEGER;

-- Only what an operator set; everything else has its default.
CREATE TABLE organisation_limit (
    organisation TEXT NOT NULL REFERENCES organisation (id),
    quota TEXT NOT NULL,
    amount INTEGER NOT NULL,
    PRIMARY KEY (organisation, quota)
) STRICT, WITHOUT ROWID;

-- The secret before the last rotation, valid until ``previous_until``.
ALTER TABLE api_key ADD COLUMN sealed_previous BLOB;
ALTER TABLE api_key ADD COLUMN previous_until INTEGER;

-- The groups that a key may change, when it may not change all. A group may be gone: the key stays limited.
CREATE TABLE api_key_scope (
    api_key TEXT NOT NULL REFERENCES api_key (id) ON DELETE CASCADE,
    security_group TEXT NOT NULL,
    organisation TEXT NOT NULL REFERENCES organisation (id),
    PRIMARY KEY (api_key, security_group)
) STRICT, WITHOUT ROWID;
