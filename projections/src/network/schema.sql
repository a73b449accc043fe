CREATE TABLE networks (
    id TEXT PRIMARY KEY,
    -- The position of the creation: lists are in this order.
    created_position INTEGER NOT NULL UNIQUE,
    -- Unique among the networks that are not deleted.
    name_key TEXT NOT NULL,
    type TEXT NOT NULL CHECK (type IN ('bridge', 'overlay')),
    -- What creates an equal one: the data of `network.changed`, in its current version.
    created TEXT NOT NULL,
    -- A JSON object; also in `created`.
    labels TEXT NOT NULL,
    generation INTEGER NOT NULL,
    -- Microseconds since 1970.
    created_at INTEGER NOT NULL,
    updated_at INTEGER NOT NULL,
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

-- The nodes that were reachable when the network was last changed: a client that waits for the network waits for these.
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

-- How many networks are ready on a node, and how many have failed, by what it reported on their generations; without
-- deleted ones. Kept by the triggers below: a list of nodes would otherwise count what all nodes reported on all
-- networks. No row is as good as zeros.
CREATE TABLE network_counts (
    node_id TEXT PRIMARY KEY,
    ready INTEGER NOT NULL,
    failed INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- How many networks there are, without deleted ones; one row, once there was a network.
CREATE TABLE network_total (
    id INTEGER PRIMARY KEY CHECK (id = 1),
    networks INTEGER NOT NULL
) STRICT;

CREATE TRIGGER network_added AFTER INSERT ON networks BEGIN
    INSERT INTO network_total (id, networks) VALUES (1, 1) ON CONFLICT (id) DO UPDATE SET networks = networks + 1;
END;
-- The row of a network is removed only after this, with the reports that are no longer counted.
CREATE TRIGGER network_deleted AFTER UPDATE OF deleted_at ON networks
WHEN old.deleted_at IS NULL AND new.deleted_at IS NOT NULL BEGIN
    UPDATE network_total SET networks = networks - 1;
    UPDATE network_counts SET (ready, failed) = (
        SELECT ready - (status = 'ready'), failed - (status = 'failed') FROM outcomes
        WHERE network_id = old.id AND outcomes.node_id = network_counts.node_id)
    WHERE node_id IN (SELECT node_id FROM outcomes WHERE network_id = old.id AND generation = old.generation);
END;
-- No report is about the new generation yet.
CREATE TRIGGER network_changed AFTER UPDATE OF generation ON networks
WHEN new.deleted_at IS NULL AND old.generation <> new.generation BEGIN
    UPDATE network_counts SET (ready, failed) = (
        SELECT ready - (status = 'ready'), failed - (status = 'failed') FROM outcomes
        WHERE network_id = old.id AND outcomes.node_id = network_counts.node_id)
    WHERE node_id IN (SELECT node_id FROM outcomes WHERE network_id = old.id AND generation = old.generation);
END;
CREATE TRIGGER outcome_added AFTER INSERT ON outcomes WHEN new.status IN ('ready', 'failed') BEGIN
    INSERT INTO network_counts (node_id, ready, failed)
    SELECT new.node_id, new.status = 'ready', new.status = 'failed' FROM networks
    WHERE id = new.network_id AND deleted_at IS NULL AND generation = new.generation
    ON CONFLICT (node_id) DO UPDATE SET ready = ready + excluded.ready, failed = failed + excluded.failed;
END;
CREATE TRIGGER outcome_changed AFTER UPDATE OF status, generation ON outcomes
WHEN (old.status, old.generation) IS NOT (new.status, new.generation) BEGIN
    INSERT INTO network_counts (node_id, ready, failed)
    SELECT new.node_id,
        (new.status = 'ready' AND new.generation = networks.generation)
            - (old.status = 'ready' AND old.generation = networks.generation),
        (new.status = 'failed' AND new.generation = networks.generation)
            - (old.status = 'failed' AND old.generation = networks.generation)
    FROM networks WHERE id = new.network_id AND deleted_at IS NULL
    ON CONFLICT (node_id) DO UPDATE SET ready = ready + excluded.ready, failed = failed + excluded.failed;
END;
