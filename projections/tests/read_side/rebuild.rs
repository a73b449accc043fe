//! Rebuilding read models: the result equals that of following, whatever the old file contains; an interrupted rebuild
//! leaves the old file unchanged.

use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use futures::future::BoxFuture;
use otherix_projections::follow::{EventReader, ReadError};
use otherix_projections::network::query::NetworkPage;
use otherix_projections::query::Page;
use otherix_projections::rebuild::{self, RebuildError};
use otherix_projections::{network, vm};
use otherix_runtime::SystemRuntime;
use otherix_schemas::outcome::Outcome;
use otherix_schemas::position::Position;
use otherix_testkit::tempdir;

use super::support::{JournalEvents, ReadSide, WriteSide, create_vm, join, rebuilt_rows, sqlite3};

async fn write_side_with_events() -> WriteSide {
    let write = WriteSide::start().await;
    write.execute(join(1)).await;
    for name in ["a", "b", "c"] {
        let id = write.create(name).await;
        write.report(1, id, write.head(), Outcome::Ready).await;
    }
    write
}

/// Reads the journal event by event, and fails after a position.
struct FailingReader {
    journal: JournalEvents,
    last: Position,
}

impl EventReader for FailingReader {
    fn read(&self, after: Position, _limit: u32) -> BoxFuture<'_, Result<Vec<Bytes>, ReadError>> {
        Box::pin(
            async move { if after >= self.last { Err("broken".into()) } else { self.journal.read(after, 1).await } },
        )
    }
}

/// Reads the journal as an earlier version recorded it, which took other names for different ones.
struct EarlierNames(JournalEvents);

impl EventReader for EarlierNames {
    fn read(&self, after: Position, limit: u32) -> BoxFuture<'_, Result<Vec<Bytes>, ReadError>> {
        Box::pin(async move {
            let bodies = self.0.read(after, limit).await?.into_iter();
            let renamed = |body: Bytes| String::from_utf8_lossy(&body).replace("\"plain\"", "\"cafe\u{301}\"");
            Ok(bodies.map(|body| renamed(body).into()).collect())
        })
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
async fn rebuilt_read_models_equal_followed_ones() {
    let (write, folder) = (write_side_with_events().await, tempdir().unwrap());
    let read = ReadSide::start(&write, folder.path()).await;
    read.reach(write.head()).await;
    let expected = read.rows();
    read.sql("PRAGMA foreign_keys = OFF; DELETE FROM networks; UPDATE nodes SET name = 'other', reachable = 0");
    let altered = read.rows();
    read.stop().await;

    let failing = FailingReader { journal: journal(&write), last: Position::new(3) };
    rebuild(&write, folder.path(), &failing).await.unwrap_err();
    assert!(folder.path().join("read-models.db.new").exists());
    let read = ReadSide::start(&write, folder.path()).await;
    assert_eq!(read.rows(), altered, "an interrupted rebuild changes nothing");
    read.stop().await;

    assert_eq!(rebuild(&write, folder.path(), &journal(&write)).await.unwrap(), write.head());
    let read = ReadSide::start(&write, folder.path()).await;
    assert_eq!(read.models.applied(), write.head());
    assert_eq!(read.rows(), expected);
    write.create("d").await;
    read.reach(write.head()).await;
    assert_eq!(read.rows(), rebuilt_rows(&write).await);
    read.stop().await;
    let files: Vec<_> = std::fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert!(files.iter().all(|name| !name.to_string_lossy().contains(".new")), "{files:?}");
}

#[tokio::test]
async fn networks_and_vms_whose_names_are_equal_now_are_all_found() {
    let (write, folder) = (WriteSide::start().await, tempdir().unwrap());
    write.execute(join(1)).await;
    for (vm, name) in [(1, "café"), (2, "plain")] {
        write.create(name).await;
        write.execute(create_vm(vm, name, None)).await;
    }
    rebuild(&write, folder.path(), &EarlierNames(journal(&write))).await.unwrap();
    let read = ReadSide::start(&write, folder.path()).await;
    let db = read.db();
    for (name, found) in [("café", "café"), ("cafe\u{301}", "cafe\u{301}"), ("CAFÉ", "café")] {
        let network = network::query::by_name(&db, &name.parse().unwrap()).unwrap().unwrap();
        let vm = vm::query::by_name(&db, &name.parse().unwrap()).unwrap().unwrap();
        assert_eq!((network.name.as_str(), vm.name.as_str()), (found, found));
    }
    let all = Page { limit: 9, after: Position::ZERO };
    assert_eq!(network::query::list(&db, NetworkPage { kind: None, page: all }).unwrap().views.len(), 2);
}

#[tokio::test]
async fn unusable_file_is_moved_aside() {
    let (write, folder) = (write_side_with_events().await, tempdir().unwrap());
    let path = folder.path().join("read-models.db");
    let content = "not a database, and not a short text either".repeat(100);
    std::fs::write(&path, &content).unwrap();
    std::fs::write(folder.path().join("read-models.db-wal"), "a log of another database").unwrap();
    let read = ReadSide::start(&write, folder.path()).await;
    read.reach(write.head()).await;
    assert_eq!(read.rows(), rebuilt_rows(&write).await);
    assert_eq!(std::fs::read_to_string(folder.path().join("read-models.db.unusable")).unwrap(), content);
    read.stop().await;

    std::fs::write(&path, &content).unwrap();
    rebuild(&write, folder.path(), &journal(&write)).await.unwrap();
    let read = ReadSide::start(&write, folder.path()).await;
    assert_eq!(read.rows(), rebuilt_rows(&write).await);
}

#[tokio::test]
async fn file_of_an_earlier_version_is_rebuilt() {
    let (write, folder) = (write_side_with_events().await, tempdir().unwrap());
    let path = folder.path().join("read-models.db");
    // The layout of version 0.1: migrations, and one checkpoint for all tables.
    let earlier =
        "CREATE TABLE _sqlx_migrations (version BIGINT PRIMARY KEY); CREATE TABLE networks (id TEXT PRIMARY KEY);
        CREATE TABLE checkpoint (id INTEGER PRIMARY KEY, position INTEGER NOT NULL, cluster TEXT NOT NULL);
        INSERT INTO checkpoint VALUES (1, 999, 'x');";
    sqlite3(&path, earlier);
    let read = ReadSide::start(&write, folder.path()).await;
    read.reach(write.head()).await;
    assert_eq!(read.rows(), rebuilt_rows(&write).await);
    assert_eq!(read.sql("SELECT count(*) FROM sqlite_schema WHERE name IN ('checkpoint', '_sqlx_migrations')"), "0\n");
}
