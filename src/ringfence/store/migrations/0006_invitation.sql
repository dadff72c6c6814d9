-- What lets a host join once: of its secret only the SHA-256 is kept. ``public_key`` is empty until the host has joined.
ALTER TABLE host ADD COLUMN token_hash BLOB;
ALTER TABLE host ADD COLUMN token_expires_at INTEGER;
ALTER TABLE host ADD COLUMN token_used INTEGER NOT NULL DEFAULT 0 CHECK (token_used IN (0, 1));
