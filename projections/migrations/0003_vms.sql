-- VMs and their NICs, warnings, and since when nodes are as they are. What there is of the tables does not tell all of it: they
-- are emptied, and made anew from the events.
DELETE FROM networks;
DELETE FROM nodes;
UPDATE checkpoint SET position = 0;

-- What works against the network on the node without being ours to change: a JSON array of texts.
ALTER TABLE outcomes ADD COLUMN warnings TEXT NOT NULL DEFAULT '[]';
CREATE INDEX outcomes_with_warnings ON outcomes (network_id) WHERE warnings <> '[]';
CREATE INDEX outcomes_by_node ON outcomes (node_id);

-- Microseconds since 1970.
ALTER TABLE nodes ADD COLUMN joined_at INTEGER NOT NULL DEFAULT 0;
ALTER TABLE nodes ADD COLUMN reachable_since INTEGER NOT NULL DEFAULT 0;
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

-- NICs, and which network each refers to. A detached one stays until its node has removed its tap.
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
