-- Every row carries its organisation. ``position`` keeps the order in which rows came; it is SQLite's own row id.
CREATE TABLE meta (
    name TEXT PRIMARY KEY,
    value TEXT NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE organisation (
    position INTEGER PRIMARY KEY,
    id TEXT NOT NULL UNIQUE,
    name TEXT NOT NULL,
    default_group TEXT NOT NULL REFERENCES security_group (id) DEFERRABLE INITIALLY DEFERRED
) STRICT;

-- One row for each revision that ever was; never deleted, so that a number is never used twice.
CREATE TABLE revision (
    number INTEGER PRIMARY KEY,
    organisation TEXT NOT NULL REFERENCES organisation (id),
    at INTEGER NOT NULL
) STRICT;

CREATE TABLE security_group (
    position INTEGER PRIMARY KEY,
    id TEXT NOT NULL UNIQUE,
    organisation TEXT NOT NULL REFERENCES organisation (id) DEFERRABLE INITIALLY DEFERRED,
    name TEXT NOT NULL,
    description TEXT,
    visibility TEXT NOT NULL CHECK (visibility IN ('private', 'public')),
    UNIQUE (organisation, visibility, name)
) STRICT;

-- ``network`` is what the caller wrote; exactly one of it and ``peer_group`` is given.
CREATE TABLE rule (
    position INTEGER PRIMARY KEY,
    id TEXT NOT NULL UNIQUE,
    organisation TEXT NOT NULL REFERENCES organisation (id),
    security_group TEXT NOT NULL REFERENCES security_group (id) ON DELETE CASCADE,
    direction TEXT NOT NULL CHECK (direction IN ('ingress', 'egress')),
    protocol TEXT NOT NULL,
    network TEXT,
    peer_group TEXT REFERENCES security_group (id),
    start_port INTEGER,
    end_port INTEGER,
    icmp INTEGER NOT NULL CHECK (icmp IN (0, 1)),
    icmp_type INTEGER,
    icmp_code INTEGER,
    description TEXT,
    CHECK ((network IS NULL) <> (peer_group IS NULL))
) STRICT;
CREATE INDEX rule_of_group ON rule (security_group, position);
CREATE INDEX rule_by_peer ON rule (peer_group);

-- ``written`` is the first spelling, ``network`` the network that it means: a group has each at most once.
CREATE TABLE external_source (
    position INTEGER PRIMARY KEY,
    organisation TEXT NOT NULL REFERENCES organisation (id),
    security_group TEXT NOT NULL REFERENCES security_group (id) ON DELETE CASCADE,
    written TEXT NOT NULL,
    network TEXT NOT NULL,
    UNIQUE (security_group, network)
) STRICT;

-- ``wanted`` is the newest revision that changed what this host must enforce.
CREATE TABLE host (
    position INTEGER PRIMARY KEY,
    name TEXT NOT NULL UNIQUE,
    organisation TEXT NOT NULL REFERENCES organisation (id),
    public_key BLOB NOT NULL,
    wanted INTEGER NOT NULL,
    created_at INTEGER NOT NULL
) STRICT;

CREATE TABLE instance (
    position INTEGER PRIMARY KEY,
    id TEXT NOT NULL UNIQUE,
    organisation TEXT NOT NULL REFERENCES organisation (id),
    name TEXT NOT NULL,
    host TEXT REFERENCES host (name),
    bound_to TEXT,
    realm TEXT NOT NULL,
    observe INTEGER NOT NULL CHECK (observe IN (0, 1)),
    created_at INTEGER NOT NULL
) STRICT;
CREATE INDEX instance_of_host ON instance (host);

CREATE TABLE interface (
    position INTEGER PRIMARY KEY,
    organisation TEXT NOT NULL REFERENCES organisation (id),
    instance TEXT NOT NULL REFERENCES instance (id) ON DELETE CASCADE,
    name TEXT NOT NULL,
    mac TEXT,
    managed INTEGER NOT NULL CHECK (managed IN (0, 1))
) STRICT;
CREATE INDEX interface_of_instance ON interface (instance, position);

CREATE TABLE interface_address (
    position INTEGER PRIMARY KEY,
    organisation TEXT NOT NULL REFERENCES organisation (id),
    interface INTEGER NOT NULL REFERENCES interface (position) ON DELETE CASCADE,
    address TEXT NOT NULL
) STRICT;
CREATE INDEX address_of_interface ON interface_address (interface, position);

CREATE TABLE worn_group (
    position INTEGER PRIMARY KEY,
    organisation TEXT NOT NULL REFERENCES organisation (id),
    instance TEXT NOT NULL REFERENCES instance (id) ON DELETE CASCADE,
    security_group TEXT NOT NULL REFERENCES security_group (id),
    UNIQUE (instance, security_group)
) STRICT;
CREATE INDEX wearer_of_group ON worn_group (security_group);

-- The secret is sealed (AES-256-GCM) with the key in secret.key, beside this file.
CREATE TABLE api_key (
    position INTEGER PRIMARY KEY,
    id TEXT NOT NULL UNIQUE,
    organisation TEXT NOT NULL REFERENCES organisation (id),
    name TEXT,
    role TEXT NOT NULL,
    sealed_secret BLOB NOT NULL,
    created_at INTEGER NOT NULL
) STRICT;

-- ``security_group`` may be gone: an operation outlives what it refers to.
CREATE TABLE operation (
    position INTEGER PRIMARY KEY,
    id TEXT NOT NULL UNIQUE,
    organisation TEXT NOT NULL REFERENCES organisation (id),
    security_group TEXT NOT NULL,
    revision INTEGER REFERENCES revision (number),
    state TEXT NOT NULL CHECK (state IN ('pending', 'success', 'failure', 'timeout')),
    reason TEXT,
    message TEXT,
    created_at INTEGER NOT NULL
) STRICT;
CREATE INDEX pending_operation ON operation (state) WHERE state = 'pending';

-- The hosts that an operation touched; ``awaited`` those that were live when it was committed.
CREATE TABLE operation_host (
    operation TEXT NOT NULL REFERENCES operation (id) ON DELETE CASCADE,
    host TEXT NOT NULL,
    organisation TEXT NOT NULL REFERENCES organisation (id),
    awaited INTEGER NOT NULL CHECK (awaited IN (0, 1)),
    PRIMARY KEY (operation, host)
) STRICT, WITHOUT ROWID;

CREATE TABLE audit (
    position INTEGER PRIMARY KEY AUTOINCREMENT,
    organisation TEXT NOT NULL REFERENCES organisation (id),
    at INTEGER NOT NULL,
    actor TEXT NOT NULL,
    address TEXT,
    request_id TEXT,
    action TEXT NOT NULL,
    subject TEXT NOT NULL,
    revision_before INTEGER NOT NULL,
    revision_after INTEGER NOT NULL,
    result TEXT NOT NULL CHECK (result IN ('applied', 'unchanged'))
) STRICT;
