CREATE TABLE _sqlx_migrations (
    version BIGINT PRIMARY KEY,
    description TEXT NOT NULL,
    installed_on TIMESTAMP NOT NULL DEFAULT CURRENT_TIMESTAMP,
    success BOOLEAN NOT NULL,
    checksum BLOB NOT NULL,
    execution_time BIGINT NOT NULL
);
CREATE TABLE networks (
    id TEXT PRIMARY KEY,
    -- The position of the creation: lists are in this order.
    created_position INTEGER NOT NULL UNIQUE,
    -- What must be unique among the networks that are not deleted.
    name_key TEXT NOT NULL,
    type TEXT NOT NULL CHECK (type IN ('bridge', 'overlay')),
    -- The data of the creating event.
    created TEXT NOT NULL,
    generation INTEGER NOT NULL,
    -- Microseconds since 1970.
    created_at INTEGER NOT NULL,
    deleted_at INTEGER
) STRICT;
CREATE UNIQUE INDEX networks_by_name ON networks (name_key) WHERE deleted_at IS NULL;
CREATE TABLE nodes (
    id TEXT PRIMARY KEY,
    name TEXT NOT NULL,
    joined_position INTEGER NOT NULL
, reachable INTEGER NOT NULL DEFAULT 1 CHECK (reachable IN (0, 1)), reachable_position INTEGER NOT NULL DEFAULT 0, joined_at INTEGER NOT NULL DEFAULT 0, reachable_since INTEGER NOT NULL DEFAULT 0, mesh_address TEXT, mesh_public_key TEXT, mesh_endpoint TEXT) STRICT;
CREATE TABLE outcomes (
    network_id TEXT NOT NULL REFERENCES networks (id) ON DELETE CASCADE,
    node_id TEXT NOT NULL REFERENCES nodes (id),
    status TEXT NOT NULL CHECK (status IN ('pending', 'ready', 'failed', 'removed')),
    error TEXT,
    generation INTEGER NOT NULL,
    reconciled_at INTEGER NOT NULL, warnings TEXT NOT NULL DEFAULT '[]',
    PRIMARY KEY (network_id, node_id)
) STRICT;
CREATE TABLE removals (
    network_id TEXT NOT NULL REFERENCES networks (id) ON DELETE CASCADE,
    node_id TEXT NOT NULL REFERENCES nodes (id),
    PRIMARY KEY (network_id, node_id)
) STRICT;
CREATE TABLE checkpoint (
    id INTEGER PRIMARY KEY CHECK (id = 1),
    position INTEGER NOT NULL,
    cluster TEXT NOT NULL
) STRICT;
CREATE TABLE awaited (
    network_id TEXT NOT NULL REFERENCES networks (id) ON DELETE CASCADE,
    node_id TEXT NOT NULL REFERENCES nodes (id),
    PRIMARY KEY (network_id, node_id)
) STRICT, WITHOUT ROWID;
CREATE INDEX outcomes_with_warnings ON outcomes (network_id) WHERE warnings <> '[]';
CREATE INDEX outcomes_by_node ON outcomes (node_id);
CREATE UNIQUE INDEX nodes_by_name ON nodes (name COLLATE NOCASE);
CREATE UNIQUE INDEX nodes_by_joining ON nodes (joined_position);
CREATE TABLE vms (
    id TEXT PRIMARY KEY,
    -- The position of the creation: lists are in this order.
    created_position INTEGER NOT NULL UNIQUE,
    -- What must be unique among the VMs that are not deleted.
    name_key TEXT NOT NULL,
    -- The data of the creating event.
    created TEXT NOT NULL,
    node_id TEXT NOT NULL REFERENCES nodes (id),
    generation INTEGER NOT NULL,
    -- Microseconds since 1970.
    created_at INTEGER NOT NULL,
    deleted_at INTEGER
) STRICT;
CREATE UNIQUE INDEX vms_by_name ON vms (name_key) WHERE deleted_at IS NULL;
CREATE INDEX vms_deleted ON vms (id) WHERE deleted_at IS NOT NULL;
CREATE INDEX vms_by_node ON vms (node_id) WHERE deleted_at IS NULL;
CREATE TABLE nics (
    id TEXT PRIMARY KEY,
    vm_id TEXT NOT NULL REFERENCES vms (id) ON DELETE CASCADE,
    -- The network may be gone before the tap of a detached NIC is: what is shown of it is kept here.
    network_id TEXT NOT NULL,
    network_name TEXT NOT NULL,
    bridge_name TEXT NOT NULL,
    mac TEXT NOT NULL,
    node_id TEXT REFERENCES nodes (id),
    generation INTEGER NOT NULL,
    detached INTEGER NOT NULL DEFAULT 0 CHECK (detached IN (0, 1)),
    -- What its node last said of it, if it did.
    status TEXT CHECK (status IN ('pending', 'ready', 'failed', 'removed')),
    error TEXT,
    warnings TEXT NOT NULL DEFAULT '[]',
    observed_generation INTEGER,
    reconciled_at INTEGER
) STRICT;
CREATE INDEX nics_by_vm ON nics (vm_id);
CREATE INDEX nics_by_network ON nics (network_id) WHERE NOT detached;
CREATE INDEX nics_by_node ON nics (node_id) WHERE NOT detached;
