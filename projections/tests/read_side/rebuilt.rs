//! Promises of making read models anew: what they hold then is what following gives, whatever the old ones held; until they
//! are complete the old ones are as they were.

use std::path::Path;

use otherix_commands::store::EventStore;
use otherix_projections::projection::{self, OpenError};
use otherix_projections::rebuild::Rebuild;
use otherix_schemas::cloudevent::EventEnvelope;
use otherix_schemas::outcome::Outcome;
use otherix_schemas::position::Position;
use otherix_testkit::tempdir;

use super::support::{ReadSide, WriteSide, fresh_rows, join};

async fn some_history() -> WriteSide {
    let write = WriteSide::start().await;
    write.execute(join(1)).await;
    for name in ["a", "b", "c"] {
        let id = write.create(name).await;
        write.report(1, id, write.head(), Outcome::Ready).await;
    }
    write
}

async fn events(write: &WriteSide) -> Vec<EventEnvelope> {
    let entries = write.journal.read(Position::ZERO, 1000).await.unwrap();
    entries.iter().map(|entry| EventEnvelope::decode(&entry.body).unwrap()).collect()
}

/// Makes them anew in two steps; without the swap when it is interrupted.
async fn rebuild(write: &WriteSide, folder: &Path, interrupted: bool) {
    let events = events(write).await;
    let (first, second) = events.split_at(3);
    let rebuild = Rebuild::begin(&folder.join("read-models.db"), write.cluster(), write.head()).await.unwrap();
    rebuild.take_in(first).await.unwrap();
    if interrupted {
        return;
    }
    rebuild.take_in(second).await.unwrap();
    rebuild.swap().await.unwrap();
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

    rebuild(&write, folder.path(), true).await;
    let read = ReadSide::start(&write, folder.path()).await;
    assert_eq!(read.rows(), wrong, "an interrupted rebuild changes nothing");
    read.stop().await;

    rebuild(&write, folder.path(), false).await;
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
async fn what_is_no_database_is_replaced_as_well() {
    let (write, folder) = (some_history().await, tempdir().unwrap());
    let path = folder.path().join("read-models.db");
    std::fs::write(&path, "not a database, and not a short text either").unwrap();
    std::fs::write(folder.path().join("read-models.db-wal"), "a log of another database").unwrap();
    let broken = projection::open(&path, write.cluster(), write.head()).await.err().unwrap();
    assert!(matches!(broken, OpenError::Database(_) | OpenError::Migrate(_)), "{broken}");
    rebuild(&write, folder.path(), false).await;
    let read = ReadSide::start(&write, folder.path()).await;
    assert_eq!(read.rows(), fresh_rows(&write).await);
}
