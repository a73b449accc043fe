//! The journal: the digest chain can be verified by other programs, every alteration is detected, triggers reject
//! changes of events, one process writes, and the schema is the checked-in one.

use std::fs;

use otherix_commands::store::{EventStore, LoadError, OpenError, SqliteStore, check_idempotency_records, replay};
use otherix_schemas::error::Causes;
use otherix_schemas::id::ClusterId;
use otherix_schemas::position::Position;
use otherix_testkit::generated::assert_up_to_date;
use otherix_testkit::python::nats_py;
use uuid::Uuid;

use super::support::{JournalFolder, RunningWriter, create, join, sql, with_key};

/// A closed journal with four events.
async fn four_events() -> JournalFolder {
    let folder = JournalFolder::new();
    let writer = RunningWriter::start(folder.open().await).await;
    for request in [join("node-1"), create("a"), with_key(create("b"), "k", "b"), join("node-2")] {
        writer.execute(request).await.unwrap();
    }
    writer.stop().await.close().await;
    folder
}

#[tokio::test]
async fn the_digest_chain_can_be_verified_independently() {
    let folder = four_events().await;
    let script = r#"
import hashlib, subprocess, sys
rows = subprocess.run(["sqlite3", "-readonly", sys.argv[1],
    "SELECT position, hex(body), hex(digest) FROM events ORDER BY position"],
    check=True, capture_output=True, text=True)
last = bytes(32)
for number, row in enumerate(rows.stdout.splitlines(), 1):
    position, body, digest = row.split("|")
    assert int(position) == number, row
    last = hashlib.sha256(last + bytes.fromhex(body)).digest()
    assert last == bytes.fromhex(digest), row
print(number, last.hex())
"#;
    let output = nats_py(script, &[folder.path().to_str().unwrap()]).await;
    let digest = replay(&folder.open().await).await.unwrap().digest;
    assert_eq!(output, format!("4 {digest:?}\n"));
}

const NO_TRIGGERS: &str = "DROP TRIGGER events_are_never_changed; DROP TRIGGER events_are_never_deleted;";

#[tokio::test]
async fn detects_every_alteration() {
    let folder = four_events().await;
    let original = fs::read(folder.path()).unwrap();
    let alterations = [
        ("UPDATE events SET stream_id = 'network/x' WHERE position = 2", "`stream_id` at position 2"),
        ("UPDATE events SET stream_version = 2 WHERE position = 2", "`stream_version` at position 2"),
        (
            "UPDATE events SET event_id = '018f0000-0000-7000-8000-000000000000' WHERE position = 3",
            "`event_id` at position 3",
        ),
        ("UPDATE events SET event_id = 'x' WHERE position = 3", "malformed value at position 3"),
        ("UPDATE events SET type = type || '2' WHERE position = 1", "`type` at position 1"),
        (
            "UPDATE events SET recorded_at = '2020-01-01T00:00:00.000000Z' WHERE position = 4",
            "`recorded_at` at position 4",
        ),
        ("UPDATE events SET digest = randomblob(32) WHERE position = 3", "`digest` at position 3"),
        ("UPDATE events SET body = CAST(body || ' ' AS BLOB) WHERE position = 1", "`digest` at position 1"),
        (
            "UPDATE events SET body = CAST(replace(body, '10.7.0.0', '10.8.0.0') AS BLOB) WHERE position = 2",
            "`digest` at position 2",
        ),
        ("UPDATE events SET body = x'7b7d' WHERE position = 2", "cannot decode the event at position 2"),
        ("DELETE FROM events WHERE position = 2", "`position` at position 3"),
        ("UPDATE events SET position = 9 WHERE position = 4", "`position` at position 9"),
        ("UPDATE meta SET cluster = '018f0000-0000-7000-8000-000000000000'", "`source` at position 1"),
        ("UPDATE meta SET epoch = 0", "`epoch` at position 1"),
    ];
    for (alteration, expected) in alterations {
        fs::write(folder.path(), &original).unwrap();
        folder.sql(&format!("{NO_TRIGGERS} {alteration};"));
        let journal = folder.open().await;
        let error = replay(&journal).await.unwrap_err();
        let text = Causes(&error).to_string();
        assert!(text.contains(expected), "{alteration}: {text}");
        journal.close().await;
    }
    fs::write(folder.path(), &original).unwrap();
    replay(&folder.open().await).await.unwrap();
}

#[tokio::test]
async fn idempotency_records_reveal_lost_events() {
    let folder = four_events().await;
    let journal = folder.open().await;
    check_idempotency_records(&journal, replay(&journal).await.unwrap().state.position()).await.unwrap();
    journal.close().await;
    drop(journal);
    folder.sql(&format!("{NO_TRIGGERS} DELETE FROM events WHERE position > 2;"));
    let journal = folder.open().await;
    let head = replay(&journal).await.unwrap().state.position();
    let error = check_idempotency_records(&journal, head).await.unwrap_err();
    assert!(matches!(&error, LoadError::Idempotency { key, .. } if key == "k"), "{error}");
    journal.close().await;
    drop(journal);
    folder.sql("UPDATE handled SET reply = x'7b7d'");
    check_idempotency_records(&folder.open().await, Position::new(9)).await.unwrap_err();
}

#[tokio::test]
async fn rejects_a_journal_without_its_first_event() {
    let folder = four_events().await;
    folder.sql(&format!("{NO_TRIGGERS} DELETE FROM events WHERE position = 1;"));
    let error = replay(&folder.open().await).await.unwrap_err();
    assert!(matches!(error, LoadError::Altered { column: "position", .. }), "{error}");
}

#[tokio::test]
async fn triggers_reject_changes_of_events() {
    let folder = four_events().await;
    let before = folder.sql("SELECT position, type, body, hex(digest) FROM events");
    let attempts = [
        ("UPDATE events SET type = 'x'", "never changed"),
        ("DELETE FROM events", "never deleted"),
        ("INSERT INTO events SELECT * FROM events WHERE position = 1", "UNIQUE"),
    ];
    for (attempt, refusal) in attempts {
        let error = sql(&folder.path(), attempt).unwrap_err();
        assert!(error.contains(refusal), "{attempt}: {error}");
    }
    assert_eq!(folder.sql("SELECT position, type, body, hex(digest) FROM events"), before);
}

#[tokio::test]
async fn locks_the_journal_and_keeps_its_cluster() {
    let folder = JournalFolder::new();
    let journal = folder.open().await;
    let error = SqliteStore::open(&folder.path(), ClusterId::new(Uuid::now_v7())).await.unwrap_err();
    assert!(
        matches!(&error, OpenError::Locked { journal, holder }
            if *journal == folder.path() && *holder == Some(std::process::id())),
        "{error}"
    );
    let identity = journal.identity();
    journal.close().await;
    drop(journal);
    assert_eq!(folder.open().await.identity(), identity);
}

#[tokio::test]
async fn uses_a_write_ahead_log() {
    let folder = four_events().await;
    assert_eq!(folder.sql("PRAGMA journal_mode"), "wal\n");
    assert_eq!(folder.sql("PRAGMA integrity_check"), "ok\n");
}

#[tokio::test]
async fn events_are_read_in_pages() {
    let folder = four_events().await;
    let journal = folder.open().await;
    let read = async |after, limit| {
        let entries = journal.read(Position::new(after), limit).await.unwrap();
        entries.iter().map(|entry| entry.position.get()).collect::<Vec<_>>()
    };
    assert_eq!(read(0, 2).await, [1, 2]);
    assert_eq!(read(2, 100).await, [3, 4]);
    assert_eq!(read(4, 100).await, [0; 0]);
}

#[tokio::test]
async fn the_schema_is_the_generated_one() {
    let folder = JournalFolder::new();
    folder.open().await.close().await;
    assert_up_to_date("schema.sql", &folder.sql(".schema"));
}
