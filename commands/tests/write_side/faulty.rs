//! A journal that fails on demand: a real one underneath, and faults that are injected.

use std::collections::VecDeque;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use otherix_commands::config::StoreIdentity;
use otherix_commands::store::{Batch, Entry, Gap, IdempotencyRecord, EventStore, StoreError, SqliteStore};
use otherix_schemas::position::Position;
use otherix_testkit::wait::wait_for;
use tokio::sync::watch;

use super::support::DEADLINE;

/// What happens to one batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// Nothing.
    None,
    /// It is not stored, and that is said.
    Lost,
    /// It is stored, but an error is reported.
    Unconfirmed,
    /// The disk does not confirm it.
    Fsync,
}

/// The journal.
pub(crate) struct FaultyJournal {
    inner: SqliteStore,
    held: watch::Sender<bool>,
    faults: Mutex<VecDeque<Fault>>,
    head_fails: AtomicBool,
    batches: Mutex<Vec<(Position, Batch)>>,
}

impl FaultyJournal {
    pub(crate) fn new(inner: SqliteStore) -> Self {
        Self {
            inner,
            held: watch::Sender::new(false),
            faults: Mutex::default(),
            head_fails: AtomicBool::new(false),
            batches: Mutex::default(),
        }
    }

    /// Every batch hangs from now on, until it is released.
    pub(crate) fn hold(&self) {
        self.held.send_replace(true);
    }

    pub(crate) fn release(&self) {
        self.held.send_replace(false);
    }

    /// What happens to the next batch that goes on.
    pub(crate) fn next(&self, fault: Fault) {
        self.faults.lock().unwrap().push_back(fault);
    }

    pub(crate) fn fail_head(&self) {
        self.head_fails.store(true, Ordering::SeqCst);
    }

    /// The batches that came, with what they were to be stored behind.
    pub(crate) fn batches(&self) -> Vec<(Position, Batch)> {
        self.batches.lock().unwrap().clone()
    }

    /// Waits until so many batches have come.
    pub(crate) async fn wait_batches(&self, count: usize) {
        wait_for(DEADLINE, "batches", async || self.batches().len() >= count).await;
    }

    pub(crate) async fn close(&self) {
        self.inner.close().await;
    }
}

fn injected() -> sqlx::Error {
    sqlx::Error::Protocol("injected".to_owned())
}

impl EventStore for FaultyJournal {
    fn identity(&self) -> StoreIdentity {
        self.inner.identity()
    }

    async fn append(&self, after: Position, batch: &Batch) -> Result<(), StoreError> {
        self.batches.lock().unwrap().push((after, batch.clone()));
        self.held.subscribe().wait_for(|held| !held).await.unwrap();
        let fault = self.faults.lock().unwrap().pop_front().unwrap_or(Fault::None);
        if matches!(fault, Fault::None | Fault::Unconfirmed) {
            self.inner.append(after, batch).await?;
        }
        match fault {
            Fault::None => Ok(()),
            Fault::Lost | Fault::Unconfirmed => Err(StoreError::Unavailable(injected())),
            Fault::Fsync => Err(StoreError::NotDurable(injected())),
        }
    }

    async fn head(&self) -> Result<Position, StoreError> {
        if self.head_fails.load(Ordering::SeqCst) {
            return Err(StoreError::Unavailable(injected()));
        }
        self.inner.head().await
    }

    async fn read(&self, after: Position, limit: u32) -> Result<Vec<Entry>, StoreError> {
        self.inner.read(after, limit).await
    }

    async fn gaps(&self) -> Result<Vec<Gap>, StoreError> {
        self.inner.gaps().await
    }

    async fn handled(&self) -> Result<Vec<IdempotencyRecord>, StoreError> {
        self.inner.handled().await
    }
}
