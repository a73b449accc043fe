//! Refused requests: counted, and logged at a bounded rate, with who made them and from where.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use otherix_schemas::error::ErrorBody;
use otherix_schemas::permission::Permission;
use otherix_schemas::user::Caller;
use tokio::time::Instant;

use crate::admission::Sender;

/// Shortest interval between two log lines about one user and permission.
const INTERVAL: Duration = Duration::from_secs(10);

/// Users and permissions that are told apart. Further ones within [`INTERVAL`] share one log line.
const ENTRIES: usize = 64;

/// Longest text that a client chose in a log line, in characters.
const TEXT_MAX: usize = 64;

/// The requests that this process refused.
pub(crate) static DENIALS: Denials = Denials(Mutex::new(BTreeMap::new()));

/// A refused request.
pub(crate) struct Denial<'a> {
    /// Who sent it, as far as the server attests it.
    pub(crate) sender: Option<&'a Sender>,
    /// Who that is, if it is known.
    pub(crate) caller: Option<&'a Caller>,
    /// What the request requires.
    pub(crate) permission: Permission,
    pub(crate) refusal: ErrorBody,
}

/// User and permission; `None` for those that are not told apart.
type Key = Option<(String, Permission)>;

/// Counts of refused requests.
#[derive(Debug)]
pub(crate) struct Denials(Mutex<BTreeMap<Key, Hits>>);

#[derive(Debug)]
struct Hits {
    logged_at: Option<Instant>,
    /// Refused since `logged_at`.
    count: u64,
}

impl Denials {
    /// Counts a refused request. If it is to be logged, returns how many there were since the last one that was.
    fn hit(&self, user: &str, permission: Permission) -> Option<u64> {
        let now = Instant::now();
        let mut entries = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut key = Some((user.to_owned(), permission));
        let mut left_out = 0;
        if !entries.contains_key(&key) && entries.len() >= ENTRIES {
            entries.retain(|key, Hits { logged_at, count }| {
                let is_kept = key.is_none() || logged_at.is_some_and(|at| now.duration_since(at) < INTERVAL);
                left_out += if is_kept { 0 } else { *count };
                is_kept
            });
            key = key.filter(|_| entries.len() < ENTRIES);
        }
        let hits = entries.entry(key).or_insert(Hits { logged_at: None, count: 0 });
        hits.count += 1 + left_out;
        if hits.logged_at.is_some_and(|at| now.duration_since(at) < INTERVAL) {
            return None;
        }
        hits.logged_at = Some(now);
        Some(std::mem::take(&mut hits.count))
    }
}

impl Denial<'_> {
    /// Counts it. Returns the refusal.
    pub(crate) fn counted(self) -> ErrorBody {
        let Self { sender, caller, permission, refusal } = self;
        let key = sender.map_or("", |sender| sender.user.as_str());
        if let Some(count) = DENIALS.hit(key, permission) {
            let user = caller.map_or(key, |caller| caller.name.as_str());
            let role = caller.map(|caller| caller.role.as_str());
            let host = sender.and_then(|sender| sender.host.as_deref()).map(shortened);
            let client = sender.and_then(|sender| sender.client.as_deref()).map(shortened);
            let (permission, error) = (permission.as_str(), &refusal.error.message);
            tracing::warn!(user, key, role, permission, host, client, count, error, "requests were refused");
        }
        refusal
    }
}

fn shortened(text: &str) -> String {
    text.chars().take(TEXT_MAX).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn each_user_and_permission_is_logged_once_in_an_interval() {
        let denials = Denials(Mutex::default());
        assert_eq!(denials.hit("alice", Permission::VmDelete), Some(1));
        assert_eq!(denials.hit("alice", Permission::VmDelete), None);
        assert_eq!(denials.hit("bob", Permission::VmDelete), Some(1), "another user");
        assert_eq!(denials.hit("alice", Permission::NetworkManage), Some(1), "another permission");
        tokio::time::advance(INTERVAL).await;
        assert_eq!(denials.hit("alice", Permission::VmDelete), Some(2));
    }

    #[tokio::test(start_paused = true)]
    async fn log_and_memory_are_bounded_however_many_users_there_are() {
        let denials = Denials(Mutex::default());
        let logged = |users: std::ops::Range<usize>| {
            users.filter_map(|user| denials.hit(&user.to_string(), Permission::VmDelete)).collect::<Vec<_>>()
        };
        assert_eq!(logged(0..10_000).len(), ENTRIES + 1);
        let entries = denials.0.lock().unwrap().len();
        assert!(entries <= ENTRIES + 1, "{entries}");
        tokio::time::advance(INTERVAL).await;
        assert_eq!(logged(20_000..20_001), [1], "entries of the past make room");
        let others = (10_000 - ENTRIES - 1) as u64;
        let counted: u64 = logged(30_000..40_000).iter().sum();
        assert!(counted > others, "those that were left out before are counted: {counted}");
    }
}
