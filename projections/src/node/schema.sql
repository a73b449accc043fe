CREATE TABLE nodes (
    id TEXT PRIMARY KEY,
    name TEXT NOT NULL,
    -- NULL if it has not told.
    arch TEXT,
    -- What it offers to machines, in JSON; NULL if it has not told.
    capacity TEXT,
    -- Lists are in this order.
    joined_position INTEGER NOT NULL,
    -- Microseconds since 1970.
    joined_at INTEGER NOT NULL,
    -- Presence, and the event it is known from.
    reachable INTEGER NOT NULL DEFAULT 1 CHECK (reachable IN (0, 1)),
    reachable_position INTEGER NOT NULL,
    reachable_since INTEGER NOT NULL,
    -- NULL for none.
    description TEXT,
    -- A JSON object.
    labels TEXT NOT NULL DEFAULT '{}',
    -- No VMs are placed on it.
    cordoned INTEGER NOT NULL DEFAULT 0 CHECK (cordoned IN (0, 1)),
    -- The place in the mesh: all three, or none for a node that is not in it.
    mesh_address TEXT,
    mesh_public_key TEXT,
    mesh_endpoint TEXT
) STRICT;
CREATE UNIQUE INDEX nodes_by_name ON nodes (name COLLATE NOCASE);
CREATE UNIQUE INDEX nodes_by_joining ON nodes (joined_position);
CREATE TABLE node_conditions (
    node_id TEXT NOT NULL,
    -- A word in snake case.
    kind TEXT NOT NULL,
    -- When it began, in microseconds since 1970, and what was known of it then.
    since INTEGER NOT NULL,
    detail TEXT NOT NULL,
    PRIMARY KEY (node_id, kind)
) STRICT, WITHOUT ROWID;
