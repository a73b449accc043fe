CREATE TABLE _sqlx_migrations (
    version BIGINT PRIMARY KEY,
    description TEXT NOT NULL,
    installed_on TIMESTAMP NOT NULL DEFAULT CURRENT_TIMESTAMP,
    success BOOLEAN NOT NULL,
    checksum BLOB NOT NULL,
    execution_time BIGINT NOT NULL
);
CREATE TABLE events (
    position INTEGER PRIMARY KEY CHECK (position > 0),
    stream_id TEXT NOT NULL,
    stream_version INTEGER NOT NULL CHECK (stream_version > 0),
    event_id TEXT NOT NULL UNIQUE,
    type TEXT NOT NULL,
    body BLOB NOT NULL,
    recorded_at TEXT NOT NULL,
    -- SHA-256 of the previous event's digest (32 zero bytes before the first) followed by `body`.
    digest BLOB NOT NULL CHECK (length(digest) = 32),
    UNIQUE (stream_id, stream_version)
) STRICT;
CREATE TRIGGER events_are_never_changed BEFORE UPDATE ON events
BEGIN
    SELECT RAISE(ABORT, 'an event is never changed');
END;
CREATE TRIGGER events_are_never_deleted BEFORE DELETE ON events
BEGIN
    SELECT RAISE(ABORT, 'an event is never deleted');
END;
CREATE TABLE handled (
    user TEXT NOT NULL,
    key TEXT NOT NULL,
    fingerprint BLOB NOT NULL,
    reply BLOB NOT NULL,
    -- Microseconds since 1970.
    at INTEGER NOT NULL,
    PRIMARY KEY (user, key)
) STRICT;
CREATE INDEX handled_by_age ON handled (at);
CREATE TABLE meta (
    id INTEGER PRIMARY KEY CHECK (id = 1),
    cluster TEXT NOT NULL,
    epoch INTEGER NOT NULL
) STRICT;
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
CREATE TABLE snapshot_chunks (
    position INTEGER NOT NULL,
    number INTEGER NOT NULL,
    bytes BLOB NOT NULL,
    PRIMARY KEY (position, number)
) STRICT;
