//! A journal written by version 0.1 is opened, migrated, verified and continued; its events are not changed.

use std::path::Path;

use otherix_commands::config::ClusterConfig;
use otherix_commands::store::{EventStore, SqliteStore, check_idempotency_records, replay};
use otherix_commands::writer::Writer;
use otherix_runtime::SystemRuntime;
use otherix_schemas::id::ClusterId;
use otherix_schemas::position::Position;
use otherix_testkit::tempdir;
use uuid::Uuid;

const FIXTURE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/v0.1/journal.db");

const EVENTS: &str =
    "SELECT position, stream_id, stream_version, event_id, type, hex(body), recorded_at, hex(digest) FROM events";

fn sql(path: &Path, query: &str) -> String {
    let output = std::process::Command::new("sqlite3")
        .args(["-bail", "-batch", "-cmd", ".timeout 10000"])
        .arg(path)
        .arg(query)
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

#[tokio::test]
async fn a_journal_of_version_0_1_opens_and_keeps_its_bytes() {
    let folder = tempdir().unwrap();
    let path = folder.path().join("journal.db");
    // `fs::copy` would also copy the mode, and the checked-in file may be read-only.
    std::fs::write(&path, std::fs::read(FIXTURE).unwrap()).unwrap();
    let before = sql(&path, EVENTS);
    let events = before.lines().count();
    assert!(events > 20, "{events} events are too few");
    assert_eq!(sql(&path, "SELECT MAX(version) FROM _sqlx_migrations"), "1\n", "the fixture was migrated");

    // As `otherixd journal verify` of this version reads it.
    let reader = SqliteStore::open_read_only(&path).await.unwrap();
    let read = replay(&reader).await.unwrap();
    assert_eq!(reader.snapshot().await.unwrap(), None);
    reader.close().await;

    let store = SqliteStore::open(&path, ClusterId::new(Uuid::nil())).await.unwrap();
    store.check().await.unwrap();
    let replayed = replay(&store).await.unwrap();
    assert_eq!((&replayed.state, replayed.digest, replayed.epoch), (&read.state, read.digest, store.identity().epoch));
    check_idempotency_records(&store, replayed.state.position()).await.unwrap();
    assert!(!store.gaps().await.unwrap().is_empty(), "the fixture has a second epoch");
    assert_ne!(store.identity().cluster, ClusterId::new(Uuid::nil()));
    let entries = store.read(Position::ZERO, u32::MAX).await.unwrap();
    assert_eq!(entries.len(), events);
    let store = std::sync::Arc::new(store);
    let (writer, handle, _stored) =
        Writer::open(std::sync::Arc::clone(&store), ClusterConfig::default(), SystemRuntime::shared()).await.unwrap();
    drop(handle);
    writer.run().await.unwrap();
    store.close().await;
    assert_eq!(sql(&path, EVENTS), before);
    assert_eq!(sql(&path, "PRAGMA integrity_check"), "ok\n");
}
