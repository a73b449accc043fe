-- Which cluster's events the read models are made from. One row.
CREATE TABLE source (
    id INTEGER PRIMARY KEY CHECK (id = 1),
    cluster TEXT NOT NULL
) STRICT;

-- Each read model: what its tables were made with, which these are, and the last event applied to them.
CREATE TABLE checkpoints (
    name TEXT PRIMARY KEY,
    version INTEGER NOT NULL,
    schema TEXT NOT NULL,
    -- A JSON array of names.
    tables TEXT NOT NULL,
    position INTEGER NOT NULL
) STRICT;
