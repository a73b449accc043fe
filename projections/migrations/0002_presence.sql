-- Which nodes are heard of, as of the last event that said so.
ALTER TABLE nodes ADD COLUMN reachable INTEGER NOT NULL DEFAULT 1 CHECK (reachable IN (0, 1));
ALTER TABLE nodes ADD COLUMN reachable_position INTEGER NOT NULL DEFAULT 0;
UPDATE nodes SET reachable_position = joined_position;

-- Whom those wait for who wait for a network: the nodes that were reachable when it was created. For a deleted network it is
-- the removals that are waited for.
CREATE TABLE awaited (
    network_id TEXT NOT NULL REFERENCES networks (id) ON DELETE CASCADE,
    node_id TEXT NOT NULL REFERENCES nodes (id),
    PRIMARY KEY (network_id, node_id)
) STRICT, WITHOUT ROWID;

-- Until now every node counted as reachable.
INSERT INTO awaited (network_id, node_id)
SELECT networks.id, nodes.id FROM networks JOIN nodes ON joined_position < generation WHERE deleted_at IS NULL;
