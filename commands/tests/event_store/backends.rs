//! The backends, as the conformance suite needs them.

use std::process::Command;

use otherix_commands::store::{EventStore, MemoryStore, SqliteStore};
use otherix_schemas::id::ClusterId;
use otherix_testkit::{TempDir, tempdir};
use uuid::Uuid;

/// Where a store keeps its contents while it is closed.
pub(crate) trait Backend {
    type Store: EventStore;

    /// Returns the cluster of the store.
    fn cluster(&self) -> ClusterId;

    /// Opens the store, and creates it the first time.
    async fn open(&self) -> Self::Store;

    /// Alters a stored event's bytes, bypassing the store.
    fn alter(&self, position: u64, from: &str, to: &str);

    /// Removes the events after a position, bypassing the store.
    fn truncate(&self, position: u64);

    /// Makes a new epoch the current one, as another process would.
    fn take_over(&self);
}

pub(crate) struct Sqlite {
    folder: TempDir,
    cluster: ClusterId,
}

impl Sqlite {
    pub(crate) fn new() -> Self {
        Self { folder: tempdir().unwrap(), cluster: ClusterId::new(Uuid::now_v7()) }
    }

    pub(crate) fn path(&self) -> std::path::PathBuf {
        self.folder.path().join("journal.db")
    }

    /// Runs statements with the `sqlite3` command. Returns its output.
    pub(crate) fn sql(&self, statements: &str) -> String {
        let output = Command::new("sqlite3")
            .args(["-bail", "-batch", "-cmd", ".timeout 10000"])
            .arg(self.path())
            .arg(statements)
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    fn without_triggers(&self, statement: &str) {
        let drop = "DROP TRIGGER IF EXISTS events_are_never_changed; DROP TRIGGER IF EXISTS events_are_never_deleted;";
        self.sql(&format!("{drop} {statement}"));
    }
}

impl Backend for Sqlite {
    type Store = SqliteStore;

    fn cluster(&self) -> ClusterId {
        self.cluster
    }

    async fn open(&self) -> SqliteStore {
        SqliteStore::open(&self.path(), self.cluster).await.unwrap()
    }

    fn alter(&self, position: u64, from: &str, to: &str) {
        self.without_triggers(&format!(
            "UPDATE events SET body = CAST(replace(body, '{from}', '{to}') AS BLOB) WHERE position = {position}"
        ));
    }

    fn truncate(&self, position: u64) {
        self.without_triggers(&format!("DELETE FROM events WHERE position > {position}"));
    }

    fn take_over(&self) {
        self.sql("UPDATE meta SET epoch = epoch + 1");
    }
}

pub(crate) struct Memory(MemoryStore);

impl Memory {
    pub(crate) fn new() -> Self {
        Self(MemoryStore::new(ClusterId::new(Uuid::now_v7())))
    }
}

impl Backend for Memory {
    type Store = MemoryStore;

    fn cluster(&self) -> ClusterId {
        self.0.identity().cluster
    }

    async fn open(&self) -> MemoryStore {
        self.0.reopen()
    }

    fn alter(&self, position: u64, from: &str, to: &str) {
        self.0.alter(|entries| {
            for entry in entries.iter_mut().filter(|entry| entry.position.get() == position) {
                entry.body = String::from_utf8(entry.body.to_vec()).unwrap().replace(from, to).into();
            }
        });
    }

    fn truncate(&self, position: u64) {
        self.0.alter(|entries| entries.retain(|entry| entry.position.get() <= position));
    }

    fn take_over(&self) {
        self.0.take_over();
    }
}
