//! Keeps the write-ahead log short without delaying appends.
//!
//! SQLite would move the log's pages into the database within the commit that makes the log long enough, and the
//! commands of that batch would wait. Here a connection of its own moves them while appends go on. Pages appended
//! meanwhile are left, and as long as any are, SQLite does not start the log from its beginning again; these few are
//! moved with appends held back. The log file is then overwritten, not extended, so a commit's flush has no metadata to
//! write.

use std::convert::Infallible;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection};
use sqlx::{ConnectOptions, Connection, Row};
use tokio::sync::{Mutex, Notify};

use crate::store::Batch;

/// Pages in the log from which on they are moved: 16 MiB.
const LONG: u64 = 4096;

/// Pages from which on an append moves them itself, because nothing else does: 64 MiB.
const TOO_LONG: u64 = 4 * LONG;

/// Pages that a commit rewrites at least: the last ones of the table and its indexes.
const PER_COMMIT: u64 = 4;

/// Bytes of events and records for which a page is counted; the rest of it holds columns and indexes.
const PER_PAGE: usize = 2800;

/// Pause after a failure.
const RETRY: Duration = Duration::from_secs(1);

const CHECKPOINT: &str = "PRAGMA wal_checkpoint(PASSIVE)";

#[derive(Debug, Default)]
pub(super) struct Wal {
    /// An estimate of the pages that are not moved yet.
    pages: AtomicU64,
    long: Notify,
    /// The connection that moves them, while the store's upkeep runs.
    connection: Mutex<Option<SqliteConnection>>,
}

impl Wal {
    /// Counts a batch that `connection` has stored.
    pub(super) async fn appended(&self, batch: &Batch, connection: &mut SqliteConnection) {
        let events: usize = batch.entries.iter().map(|entry| entry.body.len()).sum();
        let replies: usize = batch.idempotency.iter().map(|record| record.reply.len()).sum();
        // Their index is not in the order of time: each record rewrites a page.
        let new = PER_COMMIT + ((events + replies) / PER_PAGE + batch.idempotency.len()) as u64;
        let pages = self.pages.fetch_add(new, Ordering::Relaxed) + new;
        if pages >= TOO_LONG {
            match checkpoint(connection).await {
                Ok(left) => self.pages.store(left, Ordering::Relaxed),
                Err(error) => tracing::warn!(%error, "cannot move the journal's write-ahead log"),
            }
        } else if pages >= LONG {
            self.long.notify_one();
        }
    }

    /// Counts bytes that were written otherwise.
    pub(super) fn wrote(&self, bytes: usize) {
        let new = PER_COMMIT + (bytes / PER_PAGE) as u64;
        if self.pages.fetch_add(new, Ordering::Relaxed) + new >= LONG {
            self.long.notify_one();
        }
    }

    /// Moves the log whenever it is long.
    pub(super) async fn keep_short(
        &self,
        options: &SqliteConnectOptions,
        writer: &Mutex<Option<SqliteConnection>>,
    ) -> Infallible {
        loop {
            let Err(error) = self.run(options, writer).await;
            tracing::warn!(%error, "cannot move the journal's write-ahead log");
            tokio::time::sleep(RETRY).await;
        }
    }

    async fn run(
        &self,
        options: &SqliteConnectOptions,
        writer: &Mutex<Option<SqliteConnection>>,
    ) -> Result<Infallible, sqlx::Error> {
        let mut slot = self.connection.lock().await;
        let connection = slot.insert(options.connect().await?);
        loop {
            self.long.notified().await;
            checkpoint(connection).await?;
            let _no_append = writer.lock().await;
            let left = checkpoint(connection).await?;
            self.pages.store(left, Ordering::Relaxed);
        }
    }

    /// Closes the connection that moves the log; the one that is closed last moves all of it, and deletes it.
    pub(super) async fn close(&self) -> Result<(), sqlx::Error> {
        match self.connection.lock().await.take() {
            Some(connection) => connection.close().await,
            None => Ok(()),
        }
    }
}

/// Moves what it can without waiting for readers. Returns how many pages are left.
async fn checkpoint(connection: &mut SqliteConnection) -> Result<u64, sqlx::Error> {
    let row = sqlx::query(CHECKPOINT).fetch_one(connection).await?;
    let (all, moved): (i64, i64) = (row.try_get(1)?, row.try_get(2)?);
    Ok(u64::try_from(all - moved).unwrap_or_default())
}
