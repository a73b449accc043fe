CREATE TABLE vms (
    id TEXT PRIMARY KEY,
    -- The position of the creation: lists are in this order.
    created_position INTEGER NOT NULL UNIQUE,
    -- Unique among the VMs that are not deleted.
    name_key TEXT NOT NULL,
    -- The data of the creating event.
    created TEXT NOT NULL,
    node_id TEXT NOT NULL,
    -- NULL for none.
    description TEXT,
    -- A JSON object.
    labels TEXT NOT NULL DEFAULT '{}',
    -- The name of the owner at the creation; NULL if it is not known.
    owner_name TEXT,
    generation INTEGER NOT NULL,
    -- Microseconds since 1970.
    created_at INTEGER NOT NULL,
    updated_at INTEGER NOT NULL,
    deleted_at INTEGER,
    -- Why it was not moved, the last time; NULL if it was, and after the next decision about it.
    move_error TEXT
) STRICT;
-- Not UNIQUE: an earlier version compared names by fewer rules.
CREATE INDEX vms_by_name ON vms (name_key);
CREATE INDEX vms_deleted ON vms (id) WHERE deleted_at IS NOT NULL;
CREATE INDEX vms_by_node ON vms (node_id) WHERE deleted_at IS NULL;

-- What the nodes of VMs run. That of a deleted VM stays until its node has removed it.
CREATE TABLE machines (
    vm_id TEXT PRIMARY KEY REFERENCES vms (id) ON DELETE CASCADE,
    node_id TEXT NOT NULL,
    power TEXT NOT NULL CHECK (power IN ('running', 'paused', 'stopped')),
    machine_generation INTEGER NOT NULL,
    -- What it takes of its node; nothing once the VM is deleted.
    vcpus INTEGER NOT NULL,
    memory_mb INTEGER NOT NULL,
    disk_gib INTEGER NOT NULL,
    -- What its node reported last; NULL before the first report.
    machine_status TEXT CHECK (machine_status IN ('pending', 'ready', 'failed', 'removed')),
    machine_error TEXT,
    machine_warnings TEXT NOT NULL DEFAULT '[]',
    -- The status of the machine, in JSON.
    machine_state TEXT,
    machine_observed INTEGER
) STRICT, WITHOUT ROWID;
CREATE INDEX machines_by_node ON machines (node_id, vcpus, memory_mb, disk_gib);

-- The VMs that move to another node: `node_id`.
CREATE TABLE moves (
    vm_id TEXT PRIMARY KEY REFERENCES vms (id) ON DELETE CASCADE,
    node_id TEXT NOT NULL,
    move_generation INTEGER NOT NULL,
    -- Microseconds since 1970.
    since INTEGER NOT NULL,
    -- What that node reported last of this move: how far it is.
    progress TEXT,
    -- What the machine takes of that node, too.
    vcpus INTEGER NOT NULL,
    memory_mb INTEGER NOT NULL,
    disk_gib INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX moves_by_node ON moves (node_id, vcpus, memory_mb, disk_gib);

-- The nodes that have yet to remove what they have of a VM that is not on them.
CREATE TABLE copies (
    vm_id TEXT NOT NULL REFERENCES vms (id) ON DELETE CASCADE,
    node_id TEXT NOT NULL,
    PRIMARY KEY (vm_id, node_id)
) STRICT, WITHOUT ROWID;

-- A detached NIC stays until its node has removed its tap.
CREATE TABLE nics (
    id TEXT PRIMARY KEY,
    vm_id TEXT NOT NULL REFERENCES vms (id) ON DELETE CASCADE,
    -- The network may be gone before the tap of a detached NIC: what is shown of it is copied.
    network_id TEXT NOT NULL,
    network_name TEXT NOT NULL,
    bridge_name TEXT NOT NULL,
    mac TEXT NOT NULL,
    -- NULL if the network assigns no addresses.
    ip TEXT,
    node_id TEXT,
    generation INTEGER NOT NULL,
    detached INTEGER NOT NULL DEFAULT 0 CHECK (detached IN (0, 1)),
    -- The last status that its node reported; NULL before the first report.
    status TEXT CHECK (status IN ('pending', 'ready', 'failed', 'removed')),
    error TEXT,
    warnings TEXT NOT NULL DEFAULT '[]',
    observed_generation INTEGER,
    reconciled_at INTEGER
) STRICT;
CREATE INDEX nics_by_vm ON nics (vm_id);
CREATE INDEX nics_by_node ON nics (node_id) WHERE NOT detached;

-- The networks that a NIC may be attached to.
CREATE TABLE vm_networks (
    id TEXT PRIMARY KEY,
    name TEXT NOT NULL,
    bridge_name TEXT NOT NULL
) STRICT, WITHOUT ROWID;

-- The nodes of the cluster, as far as VMs' views show them.
CREATE TABLE vm_nodes (
    id TEXT PRIMARY KEY,
    name TEXT NOT NULL,
    -- NULL if it has not told.
    arch TEXT,
    reachable INTEGER NOT NULL DEFAULT 1 CHECK (reachable IN (0, 1))
) STRICT, WITHOUT ROWID;
