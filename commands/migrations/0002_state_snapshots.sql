-- The writer's state at a position, so that a start reads only the events after it. Derived from the events: can be
-- deleted.
CREATE TABLE snapshots (
    position INTEGER PRIMARY KEY CHECK (position > 0),
    cluster TEXT NOT NULL,
    epoch INTEGER NOT NULL,
    -- Version of the encoding.
    format INTEGER NOT NULL,
    -- Of the event at `position`.
    event_id TEXT NOT NULL,
    event_digest BLOB NOT NULL CHECK (length(event_digest) = 32),
    -- SHA-256 of all of the above and of the chunks' bytes.
    sha256 BLOB NOT NULL CHECK (length(sha256) = 32)
) STRICT;

-- Written before their row in `snapshots`; chunks without one are left over from a save that was interrupted.
CREATE TABLE snapshot_chunks (
    position INTEGER NOT NULL,
    number INTEGER NOT NULL,
    bytes BLOB NOT NULL,
    PRIMARY KEY (position, number)
) STRICT;
