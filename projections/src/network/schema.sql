CREATE TABLE networks (
    id TEXT PRIMARY KEY,
    -- The position of the creation: lists are in this order.
    created_position INTEGER NOT NULL UNIQUE,
    -- Unique among the networks that are not deleted.
    name_key TEXT NOT NULL,
    type TEXT NOT NULL CHECK (type IN ('bridge', 'overlay')),
    -- The data of the creating event, in its current version.
    created TEXT NOT NULL,
    generation INTEGER NOT NULL,
    -- Microseconds since 1970.
    created_at INTEGER NOT NULL,
    deleted_at INTEGER
) STRICT;
-- Not UNIQUE: an earlier version compared names by fewer rules.
CREATE INDEX networks_by_name ON networks (name_key);
CREATE INDEX networks_deleted ON networks (id) WHERE deleted_at IS NOT NULL;

-- The nodes of the cluster, as far as networks' views show them.
CREATE TABLE network_nodes (
    id TEXT PRIMARY KEY,
    name TEXT NOT NULL,
    reachable INTEGER NOT NULL DEFAULT 1 CHECK (reachable IN (0, 1))
) STRICT, WITHOUT ROWID;

-- The last status that a node reported for a network.
CREATE TABLE outcomes (
    network_id TEXT NOT NULL REFERENCES networks (id) ON DELETE CASCADE,
    node_id TEXT NOT NULL,
    status TEXT NOT NULL CHECK (status IN ('pending', 'ready', 'failed', 'removed')),
    error TEXT,
    generation INTEGER NOT NULL,
    reconciled_at INTEGER NOT NULL,
    -- A JSON array of texts.
    warnings TEXT NOT NULL DEFAULT '[]',
    PRIMARY KEY (network_id, node_id)
) STRICT, WITHOUT ROWID;
CREATE INDEX outcomes_with_warnings ON outcomes (network_id) WHERE warnings <> '[]';
CREATE INDEX outcomes_by_node ON outcomes (node_id);

-- The nodes that were reachable when the network was created: a client that waits for the network waits for these.
CREATE TABLE awaited (
    network_id TEXT NOT NULL REFERENCES networks (id) ON DELETE CASCADE,
    node_id TEXT NOT NULL,
    PRIMARY KEY (network_id, node_id)
) STRICT, WITHOUT ROWID;

-- The nodes that have not confirmed the removal of a deleted network. With the last of them the network's row is
-- deleted.
CREATE TABLE removals (
    network_id TEXT NOT NULL REFERENCES networks (id) ON DELETE CASCADE,
    node_id TEXT NOT NULL,
    PRIMARY KEY (network_id, node_id)
) STRICT, WITHOUT ROWID;
