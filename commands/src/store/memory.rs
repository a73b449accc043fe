//! An event store in memory, for tests and simulations. It can be made to fail: see [`Faults`].

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use otherix_schemas::event::StreamId;
use otherix_schemas::id::ClusterId;
use otherix_schemas::position::{Epoch, Position};
use otherix_schemas::timestamp::Timestamp;
use otherix_schemas::value::UserId;
use tokio::sync::watch;

use super::{Batch, Entry, EventStore, Gap, IdempotencyRecord, StoreError, StoredSnapshot};
use crate::config::StoreIdentity;

/// What happens to one append.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The append succeeds.
    None,
    /// Nothing is stored; an error with unknown outcome is returned.
    NotStored,
    /// The batch is stored, but an error with unknown outcome is returned.
    StoredUnconfirmed,
    /// Nothing is stored; the disk does not confirm durability.
    NotDurable,
}

/// The faults to inject, and the appends that were begun.
#[derive(Debug)]
pub struct Faults {
    held: watch::Sender<bool>,
    pending: Mutex<VecDeque<Fault>>,
    head_fails: Mutex<bool>,
    appends: watch::Sender<Vec<(Position, Batch)>>,
}

#[derive(Debug)]
struct Contents {
    identity: StoreIdentity,
    entries: Vec<Entry>,
    records: HashMap<(UserId, String), IdempotencyRecord>,
    snapshot: Option<StoredSnapshot>,
}

/// An event store whose contents are kept as long as one of its handles.
#[derive(Debug)]
pub struct MemoryStore {
    identity: StoreIdentity,
    contents: Arc<Mutex<Contents>>,
    faults: Arc<Faults>,
}

#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct MemoryError(&'static str);

fn unavailable(what: &'static str) -> StoreError {
    StoreError::Unavailable(MemoryError(what).into())
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Faults {
    /// Delays every append from now on, until [`Faults::release`].
    pub fn hold(&self) {
        self.held.send_replace(true);
    }

    pub fn release(&self) {
        self.held.send_replace(false);
    }

    /// Adds what happens to the next append that no fault is set for yet.
    pub fn inject(&self, fault: Fault) {
        lock(&self.pending).push_back(fault);
    }

    /// Makes [`EventStore::head`] fail from now on.
    pub fn fail_head(&self) {
        *lock(&self.head_fails) = true;
    }

    /// Returns all batches that appends were begun with, each with the position before it.
    pub fn appends(&self) -> Vec<(Position, Batch)> {
        self.appends.borrow().clone()
    }

    /// Returns how many appends were begun.
    pub fn append_count(&self) -> usize {
        self.appends.borrow().len()
    }

    /// Waits until so many appends were begun.
    pub async fn wait_appends(&self, count: usize) {
        let mut appends = self.appends.subscribe();
        // The sender is a field of `self`.
        let _never_closed = appends.wait_for(|appends| appends.len() >= count).await;
    }
}

impl MemoryStore {
    /// Returns an empty store of a cluster, in the first epoch.
    pub fn new(cluster: ClusterId) -> Self {
        let identity = StoreIdentity { cluster, epoch: Epoch::FIRST };
        let contents = Contents { identity, entries: Vec::new(), records: HashMap::new(), snapshot: None };
        let faults = Faults {
            held: watch::Sender::new(false),
            pending: Mutex::default(),
            head_fails: Mutex::default(),
            appends: watch::Sender::default(),
        };
        Self { identity, contents: Arc::new(Mutex::new(contents)), faults: Arc::new(faults) }
    }

    /// Returns a store with the same contents and no faults, as if it were opened again.
    #[must_use]
    pub fn reopen(&self) -> Self {
        let identity = self.contents().identity;
        Self { contents: Arc::clone(&self.contents), ..Self::new(identity.cluster) }.with_identity(identity)
    }

    fn with_identity(self, identity: StoreIdentity) -> Self {
        Self { identity, ..self }
    }

    pub fn faults(&self) -> &Faults {
        &self.faults
    }

    /// Alters the stored events without any check, as damage or an attacker would.
    pub fn alter(&self, change: impl FnOnce(&mut Vec<Entry>)) {
        change(&mut self.contents().entries);
    }

    /// Makes a new epoch the current one, as another process would.
    pub fn take_over(&self) {
        let mut contents = self.contents();
        contents.identity.epoch = Epoch::new(contents.identity.epoch.get() + 1);
    }

    /// Alters the stored snapshot without any check.
    pub fn alter_snapshot(&self, change: impl FnOnce(&mut Option<StoredSnapshot>)) {
        change(&mut self.contents().snapshot);
    }

    fn contents(&self) -> MutexGuard<'_, Contents> {
        lock(&self.contents)
    }

    fn store(&self, after: Position, batch: &Batch) -> Result<(), StoreError> {
        if batch.is_empty() {
            return Ok(());
        }
        let mut contents = self.contents();
        contents.fence(after, self.identity.epoch)?;
        contents.check_unique(&batch.entries)?;
        contents.entries.extend(batch.entries.iter().cloned());
        if let Some(before) = batch.expire_before {
            contents.records.retain(|_, record| record.at >= before);
        }
        for record in &batch.idempotency {
            contents.records.insert((record.user.clone(), record.key.clone()), record.clone());
        }
        Ok(())
    }
}

impl Contents {
    fn head(&self) -> Position {
        self.entries.last().map_or(Position::ZERO, |entry| entry.position)
    }

    fn fence(&self, expected: Position, epoch: Epoch) -> Result<(), StoreError> {
        let (found, current) = (self.head(), self.identity.epoch);
        if found == expected && current == epoch {
            return Ok(());
        }
        Err(StoreError::Fenced { expected, found, epoch: current })
    }

    fn check_unique(&self, new: &[Entry]) -> Result<(), StoreError> {
        let mut ids = HashSet::new();
        let mut versions = HashSet::new();
        let all = self.entries.iter().chain(new);
        let mut is_new = |entry: &Entry| {
            ids.insert(entry.event_id) && versions.insert((entry.stream_id.clone(), entry.stream_version))
        };
        if all.into_iter().all(&mut is_new) { Ok(()) } else { Err(unavailable("an event id or version is not unique")) }
    }
}

impl EventStore for MemoryStore {
    fn identity(&self) -> StoreIdentity {
        self.identity
    }

    async fn append(&self, after: Position, batch: &Batch) -> Result<(), StoreError> {
        self.faults.appends.send_modify(|appends| appends.push((after, batch.clone())));
        // The sender is a field of `self`.
        let mut held = self.faults.held.subscribe();
        let _never_closed = held.wait_for(|held| !held).await;
        match lock(&self.faults.pending).pop_front().unwrap_or(Fault::None) {
            Fault::None => self.store(after, batch),
            Fault::NotStored => Err(unavailable("injected: not stored")),
            Fault::StoredUnconfirmed => {
                self.store(after, batch)?;
                Err(unavailable("injected: stored"))
            }
            Fault::NotDurable => Err(StoreError::NotDurable(MemoryError("injected").into())),
        }
    }

    async fn head(&self) -> Result<Position, StoreError> {
        if *lock(&self.faults.head_fails) {
            return Err(unavailable("injected: no head"));
        }
        Ok(self.contents().head())
    }

    async fn read(&self, after: Position, limit: u32) -> Result<Vec<Entry>, StoreError> {
        let contents = self.contents();
        let begin = contents.entries.partition_point(|entry| entry.position <= after);
        Ok(contents.entries.iter().skip(begin).take(limit as usize).cloned().collect())
    }

    async fn gaps(&self) -> Result<Vec<Gap>, StoreError> {
        let contents = self.contents();
        let stream = StreamId::Cluster(self.identity.cluster).to_string();
        let mut kept = Position::ZERO;
        let mut gaps = Vec::new();
        for entry in &contents.entries {
            if entry.stream_id == stream {
                gaps.push(Gap { kept, next: entry.position });
            }
            kept = entry.position;
        }
        Ok(gaps)
    }

    async fn begin_epoch(&mut self, after: Position, first: &Entry, epoch: Epoch) -> Result<(), StoreError> {
        {
            let mut contents = self.contents();
            contents.fence(after, self.identity.epoch)?;
            contents.check_unique(std::slice::from_ref(first))?;
            contents.entries.push(first.clone());
            contents.identity.epoch = epoch;
            contents.snapshot = None;
        }
        self.identity.epoch = epoch;
        Ok(())
    }

    async fn adopt_cluster(&mut self, cluster: ClusterId) -> Result<(), StoreError> {
        let is_adopted = {
            let mut contents = self.contents();
            let is_empty = contents.entries.is_empty();
            if is_empty {
                contents.identity.cluster = cluster;
            }
            is_empty
        };
        if is_adopted {
            self.identity.cluster = cluster;
        }
        Ok(())
    }

    async fn idempotency_record(&self, user: &UserId, key: &str) -> Result<Option<IdempotencyRecord>, StoreError> {
        Ok(self.contents().records.get(&(user.clone(), key.to_owned())).cloned())
    }

    async fn idempotency_records(
        &self,
        after: Option<&IdempotencyRecord>,
        limit: u32,
    ) -> Result<Vec<IdempotencyRecord>, StoreError> {
        fn order(record: &IdempotencyRecord) -> (Timestamp, &str, &str) {
            (record.at, record.user.as_str(), &record.key)
        }
        let contents = self.contents();
        let mut records: Vec<_> = contents.records.values().collect();
        records.sort_by_key(|record| order(record));
        let following = records.into_iter().filter(|record| after.is_none_or(|after| order(record) > order(after)));
        Ok(following.take(limit as usize).cloned().collect())
    }

    async fn idempotency_keys(
        &self,
        after: Option<(&UserId, &str)>,
        limit: u32,
    ) -> Result<Vec<(UserId, String)>, StoreError> {
        let contents = self.contents();
        let mut keys: Vec<_> = contents.records.keys().collect();
        keys.sort();
        let following = keys.into_iter().filter(|(user, key)| after.is_none_or(|after| (user, key.as_str()) > after));
        Ok(following.take(limit as usize).cloned().collect())
    }

    async fn snapshot(&self) -> Result<Option<StoredSnapshot>, StoreError> {
        Ok(self.contents().snapshot.clone())
    }

    async fn save_snapshot(&self, snapshot: &StoredSnapshot) -> Result<(), StoreError> {
        self.contents().snapshot = Some(snapshot.clone());
        Ok(())
    }

    async fn discard_snapshots(&self) -> Result<(), StoreError> {
        self.contents().snapshot = None;
        Ok(())
    }

    async fn upkeep(&self) -> std::convert::Infallible {
        std::future::pending().await
    }

    async fn check(&self) -> Result<(), StoreError> {
        Ok(())
    }

    async fn close(&self) {}
}
