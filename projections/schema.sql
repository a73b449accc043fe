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
, reachable INTEGER NOT NULL DEFAULT 1 CHECK (reachable IN (0, 1)), reachable_position INTEGER NOT NULL DEFAULT 0) STRICT;
CREATE TABLE outcomes (
    network_id TEXT NOT NULL REFERENCES networks (id) ON DELETE CASCADE,
    node_id TEXT NOT NULL REFERENCES nodes (id),
    status TEXT NOT NULL CHECK (status IN ('pending', 'ready', 'failed', 'removed')),
    error TEXT,
    generation INTEGER NOT NULL,
    reconciled_at INTEGER NOT NULL,
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
