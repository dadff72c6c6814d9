-- Hosts as one value, a JSON array of their names in order, under a hash of organisation and names: changes that touch the
-- same hosts share it. Those from before have the id of their operation.
CREATE TABLE host_set (
    position INTEGER PRIMARY KEY,
    id TEXT NOT NULL UNIQUE,
    organisation TEXT NOT NULL REFERENCES organisation (id),
    hosts TEXT NOT NULL
) STRICT;

-- The hosts that must enforce something else from a revision on; ``host.wanted`` is the revision that a host came with.
ALTER TABLE revision ADD COLUMN touched TEXT REFERENCES host_set (id);

-- Those of an operation's hosts that were not live when it was committed.
ALTER TABLE operation ADD COLUMN offline TEXT REFERENCES host_set (id);

INSERT INTO host_set (id, organisation, hosts)
    SELECT operation, organisation, CAST(json_group_array(host) AS TEXT) FROM operation_host
    GROUP BY operation, organisation;
INSERT INTO host_set (id, organisation, hosts)
    SELECT operation || ' offline', organisation, CAST(json_group_array(host) AS TEXT) FROM operation_host
    WHERE awaited = 0 GROUP BY operation, organisation;
UPDATE revision SET touched = host_set.id
    FROM operation JOIN host_set ON host_set.id = operation.id WHERE operation.revision = revision.number;
UPDATE operation SET offline = host_set.id FROM host_set WHERE host_set.id = operation.id || ' offline';
DROP TABLE operation_host;
CREATE INDEX revision_by_touched ON revision (touched, number) WHERE touched IS NOT NULL;
