//! Promises of making read models anew: what they hold then is what following gives, whatever the old ones held; until
//! they are complete the old ones are as they were.

use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use futures::future::BoxFuture;
use otherix_projections::follow::{EventReader, ReadError};
use otherix_projections::rebuild::{self, RebuildError};
use otherix_runtime::SystemRuntime;
use otherix_schemas::outcome::Outcome;
use otherix_schemas::position::Position;
use otherix_testkit::tempdir;

use super::support::{JournalEvents, ReadSide, WriteSide, fresh_rows, join, sqlite3};

async fn some_history() -> WriteSide {
    let write = WriteSide::start().await;
    write.ask(join(1)).await;
    for name in ["a", "b", "c"] {
        let id = write.create(name).await;
        write.report(1, id, write.head(), Outcome::Ready).await;
    }
    write
}

/// The journal, read event by event; it fails behind a position.
struct Breaking {
    journal: JournalEvents,
    last: Position,
}

impl EventReader for Breaking {
    fn read(&self, after: Position, _limit: u32) -> BoxFuture<'_, Result<Vec<Bytes>, ReadError>> {
        Box::pin(
            async move { if after >= self.last { Err("broken".into()) } else { self.journal.read(after, 1).await } },
        )
    }
}

async fn rebuild(write: &WriteSide, folder: &Path, events: &dyn EventReader) -> Result<Position, RebuildError> {
    rebuild::rebuild(&folder.join("read-models.db"), write.cluster(), write.head(), SystemRuntime::shared(), events)
        .await
}

fn journal(write: &WriteSide) -> JournalEvents {
    JournalEvents(Arc::clone(&write.journal))
}

#[tokio::test]
async fn whatever_the_old_ones_hold_the_new_ones_are_right() {
    let (write, folder) = (some_history().await, tempdir().unwrap());
    let read = ReadSide::start(&write, folder.path()).await;
    read.reach(write.head()).await;
    let right = read.rows();
    read.sql("PRAGMA foreign_keys = OFF; DELETE FROM networks; UPDATE nodes SET name = 'other', reachable = 0");
    let wrong = read.rows();
    read.stop().await;

    let breaking = Breaking { journal: journal(&write), last: Position::new(3) };
    rebuild(&write, folder.path(), &breaking).await.unwrap_err();
    assert!(folder.path().join("read-models.db.new").exists());
    let read = ReadSide::start(&write, folder.path()).await;
    assert_eq!(read.rows(), wrong, "an interrupted rebuild changes nothing");
    read.stop().await;

    assert_eq!(rebuild(&write, folder.path(), &journal(&write)).await.unwrap(), write.head());
    let read = ReadSide::start(&write, folder.path()).await;
    assert_eq!(read.models.applied(), write.head());
    assert_eq!(read.rows(), right);
    write.create("d").await;
    read.reach(write.head()).await;
    assert_eq!(read.rows(), fresh_rows(&write).await);
    read.stop().await;
    let left: Vec<_> = std::fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert!(left.iter().all(|name| !name.to_string_lossy().contains(".new")), "{left:?}");
}

#[tokio::test]
async fn unusable_file_is_moved_aside() {
    let (write, folder) = (some_history().await, tempdir().unwrap());
    let path = folder.path().join("read-models.db");
    let content = "not a database, and not a short text either".repeat(100);
    std::fs::write(&path, &content).unwrap();
    std::fs::write(folder.path().join("read-models.db-wal"), "a log of another database").unwrap();
    let read = ReadSide::start(&write, folder.path()).await;
    read.reach(write.head()).await;
    assert_eq!(read.rows(), fresh_rows(&write).await);
    assert_eq!(std::fs::read_to_string(folder.path().join("read-models.db.unusable")).unwrap(), content);
    read.stop().await;

    std::fs::write(&path, &content).unwrap();
    rebuild(&write, folder.path(), &journal(&write)).await.unwrap();
    let read = ReadSide::start(&write, folder.path()).await;
    assert_eq!(read.rows(), fresh_rows(&write).await);
}

#[tokio::test]
async fn file_of_an_earlier_version_is_rebuilt() {
    let (write, folder) = (some_history().await, tempdir().unwrap());
    let path = folder.path().join("read-models.db");
    // As version 0.1 had it: migrations, and one checkpoint for all tables.
    let earlier =
        "CREATE TABLE _sqlx_migrations (version BIGINT PRIMARY KEY); CREATE TABLE networks (id TEXT PRIMARY KEY);
        CREATE TABLE checkpoint (id INTEGER PRIMARY KEY, position INTEGER NOT NULL, cluster TEXT NOT NULL);
        INSERT INTO checkpoint VALUES (1, 999, 'x');";
    sqlite3(&path, earlier);
    let read = ReadSide::start(&write, folder.path()).await;
    read.reach(write.head()).await;
    assert_eq!(read.rows(), fresh_rows(&write).await);
    assert_eq!(read.sql("SELECT count(*) FROM sqlite_schema WHERE name IN ('checkpoint', '_sqlx_migrations')"), "0\n");
}
