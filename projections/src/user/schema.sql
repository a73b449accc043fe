CREATE TABLE users (
    id TEXT PRIMARY KEY,
    -- The position of the creation: lists are in this order.
    created_position INTEGER NOT NULL UNIQUE,
    name TEXT NOT NULL,
    -- Unique.
    name_key TEXT NOT NULL UNIQUE,
    role TEXT NOT NULL CHECK (role IN ('admin', 'operator', 'developer', 'viewer')),
    key TEXT NOT NULL UNIQUE,
    -- Microseconds since 1970; NULL if the credential does not expire, or is not revoked.
    expires_at INTEGER,
    revoked_at INTEGER,
    -- The last event about the user.
    generation INTEGER NOT NULL,
    created_at INTEGER NOT NULL,
    updated_at INTEGER NOT NULL
) STRICT;
