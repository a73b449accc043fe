//! Which idempotency keys may have been used in the last 24 hours.
//!
//! The records themselves are in the store. Kept in memory are those that are not durable yet, and a hash of every
//! other key: only a key whose hash is known has to be looked up, which is rarely that of a new request.

use std::collections::{HashMap, HashSet};
use std::future::Future;
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;

use bytes::Bytes;
use otherix_schemas::timestamp::Timestamp;
use otherix_schemas::value::UserId;

use super::request::IdempotencyKey;
use crate::store::{EventStore, IdempotencyRecord, StoreError};

/// How long a record is valid: 24 hours, in microseconds.
const VALID_MICROS: i64 = 24 * 60 * 60 * 1_000_000;

/// Keys read from the store at once.
const PAGE: u32 = 5_000;

/// Records after which a batch deletes expired ones; a store deletes more than that at once.
const DELETE_EVERY: u32 = 100;

/// What a key was used for before.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum PriorUse {
    None,
    /// The same request succeeded with this answer.
    Same(Bytes),
    /// Another request succeeded.
    Other,
}

#[derive(Debug, Default)]
pub(super) struct IdempotencyKeys {
    /// Records that are not known to be durable.
    pending: HashMap<(UserId, String), IdempotencyRecord>,
    hashes: Hashes,
    /// Whether the keys of all records in the store are in `hashes`.
    is_complete: bool,
    /// Records added since expired ones were last deleted.
    added: u32,
}

/// Hashes of keys. Every 24 hours those of the 24 hours before are dropped.
#[derive(Debug, Default)]
struct Hashes {
    hasher: RandomState,
    current: HashSet<u64>,
    previous: HashSet<u64>,
    since: Option<Timestamp>,
}

impl Hashes {
    fn hash(&self, user: &UserId, key: &str) -> u64 {
        hash(&self.hasher, user, key)
    }

    fn contains(&self, hash: u64) -> bool {
        self.current.contains(&hash) || self.previous.contains(&hash)
    }

    fn insert(&mut self, hash: u64, at: Timestamp) {
        let since = *self.since.get_or_insert(at);
        if at.unix_micros() - since.unix_micros() > VALID_MICROS {
            self.since = Some(at);
            self.previous = std::mem::take(&mut self.current);
        }
        self.current.insert(hash);
    }
}

impl IdempotencyKeys {
    /// Returns whether the key has to be looked up in the store.
    pub(super) fn needs_look_up(&self, user: &UserId, key: &str) -> bool {
        let is_pending = || self.pending.contains_key(&(user.clone(), key.to_owned()));
        (!self.is_complete || self.hashes.contains(self.hashes.hash(user, key))) && !is_pending()
    }

    /// Returns what the key was used for before, given the record that was looked up if that was needed.
    pub(super) fn find(
        &self,
        user: &UserId,
        key: &IdempotencyKey,
        stored: Option<IdempotencyRecord>,
        now: Timestamp,
    ) -> PriorUse {
        let pending = || self.pending.get(&(user.clone(), key.key.clone())).cloned();
        match stored.or_else(pending).filter(|record| oldest_valid(now).is_none_or(|oldest| record.at >= oldest)) {
            None => PriorUse::None,
            Some(record) if record.fingerprint == key.fingerprint => PriorUse::Same(record.reply),
            Some(_) => PriorUse::Other,
        }
    }

    /// Adds a record that is to be stored.
    pub(super) fn add(&mut self, record: &IdempotencyRecord) {
        self.hashes.insert(self.hashes.hash(&record.user, &record.key), record.at);
        self.pending.insert((record.user.clone(), record.key.clone()), record.clone());
        self.added += 1;
    }

    /// Returns whether the batch with the record added last is to delete expired records, too.
    pub(super) fn is_deletion_due(&mut self) -> bool {
        let is_due = self.added >= DELETE_EVERY;
        if is_due {
            self.added = 0;
        }
        is_due
    }

    /// The records are in the store now.
    pub(super) fn stored(&mut self, records: &[IdempotencyRecord]) {
        for IdempotencyRecord { user, key, at, .. } in records {
            let key = (user.clone(), key.clone());
            // The key may have been used once more since.
            if self.pending.get(&key).is_some_and(|pending| pending.at == *at) {
                self.pending.remove(&key);
            }
        }
    }

    /// Whether pending records were stored is unknown: their keys have to be looked up.
    pub(super) fn discard_pending(&mut self) {
        self.pending.clear();
    }

    /// Reads the hashes of all keys in the store, for [`IdempotencyKeys::complete`].
    pub(super) fn read_hashes<S: EventStore>(
        &self,
        store: Arc<S>,
    ) -> impl Future<Output = Result<HashSet<u64>, StoreError>> + Send + use<S> {
        let hasher = self.hashes.hasher.clone();
        async move {
            let mut hashes = HashSet::new();
            let mut last: Option<(UserId, String)> = None;
            loop {
                let after = last.as_ref().map(|(user, key)| (user, key.as_str()));
                let page = store.idempotency_keys(after, PAGE).await?;
                hashes.extend(page.iter().map(|(user, key)| hash(&hasher, user, key)));
                last = page.into_iter().next_back();
                if last.is_none() {
                    return Ok(hashes);
                }
            }
        }
    }

    /// From now on, a key whose hash is not known is new.
    pub(super) fn complete(&mut self, hashes: HashSet<u64>) {
        self.hashes.current.extend(hashes);
        self.is_complete = true;
    }
}

fn hash(hasher: &RandomState, user: &UserId, key: &str) -> u64 {
    hasher.hash_one((user, key))
}

/// Returns the time from which on records are valid.
pub(super) fn oldest_valid(now: Timestamp) -> Option<Timestamp> {
    Timestamp::from_unix_micros(now.unix_micros() - VALID_MICROS).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Digest;

    fn at(hours: i64) -> Timestamp {
        Timestamp::from_unix_micros(hours * 3_600_000_000).unwrap()
    }

    fn record(user: &str, at: Timestamp) -> IdempotencyRecord {
        let (user, fingerprint) = (user.parse().unwrap(), Digest::of(&[b"a"]));
        IdempotencyRecord { user, key: "k".to_owned(), fingerprint, reply: Bytes::from_static(b"yes"), at }
    }

    #[test]
    fn a_record_is_valid_for_24_hours_and_for_its_user() {
        let user: UserId = "admin".parse().unwrap();
        let key = IdempotencyKey { key: "k".to_owned(), fingerprint: Digest::of(&[b"a"]) };
        let mut keys = IdempotencyKeys::default();
        keys.add(&record("admin", at(0)));
        assert_eq!(keys.find(&user, &key, None, at(24)), PriorUse::Same(Bytes::from_static(b"yes")));
        let other = IdempotencyKey { fingerprint: Digest::of(&[b"b"]), ..key.clone() };
        assert_eq!(keys.find(&user, &other, None, at(24)), PriorUse::Other);
        assert_eq!(keys.find(&"node".parse().unwrap(), &key, None, at(24)), PriorUse::None);
        assert_eq!(keys.find(&user, &key, None, at(25)), PriorUse::None);
    }

    #[test]
    fn only_known_keys_that_are_not_pending_are_looked_up() {
        let user: UserId = "admin".parse().unwrap();
        let mut keys = IdempotencyKeys::default();
        assert!(keys.needs_look_up(&user, "k"), "the store may have it");
        keys.complete(HashSet::new());
        assert!(!keys.needs_look_up(&user, "k"));
        keys.add(&record("admin", at(0)));
        assert!(!keys.needs_look_up(&user, "k"), "it is pending");
        keys.stored(&[record("admin", at(0))]);
        assert!(keys.needs_look_up(&user, "k") && !keys.needs_look_up(&user, "other"));
        keys.add(&record("other", at(30)));
        assert!(keys.needs_look_up(&user, "k"), "dropped too early");
        keys.add(&record("other", at(60)));
        assert!(!keys.needs_look_up(&user, "k"), "kept for ever");
    }

    #[test]
    fn a_key_whose_record_may_not_have_been_stored_is_looked_up() {
        let user: UserId = "admin".parse().unwrap();
        let mut keys = IdempotencyKeys::default();
        keys.complete(HashSet::new());
        keys.add(&record("admin", at(0)));
        keys.discard_pending();
        assert!(keys.needs_look_up(&user, "k"));
    }
}
