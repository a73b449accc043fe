//! Refused requests, and what the NATS server itself refuses: counted, and logged at a bounded rate, with who tried and
//! from where.

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
const TEXT_MAX: usize = 128;

/// Shortest word that may be a secret, in bytes: less than the length of a seed.
const SECRET_MIN: usize = 40;

/// The first letters of public keys: of users, accounts, operators and servers.
const PUBLIC: [char; 4] = ['U', 'A', 'O', 'N'];

/// The requests that this process refused.
static DENIALS: Denials = Denials::new();

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

/// Something that the NATS server has refused.
#[derive(Clone, Copy, Debug, Default)]
pub struct NatsRefusal<'a> {
    /// The key of the user, if the server names it.
    pub key: &'a str,
    /// Who that is, if it is known.
    pub caller: Option<&'a Caller>,
    /// What it requires, if that is known.
    pub permission: Option<Permission>,
    /// The address that the user is connected from.
    pub host: Option<&'a str>,
    /// The name that the client gave itself.
    pub client: Option<&'a str>,
    pub error: &'a str,
}

/// User and permission; `None` for those that are not told apart.
type Key = Option<(String, Option<Permission>)>;

/// Counts of refused requests.
#[derive(Debug, Default)]
pub struct Denials(Mutex<BTreeMap<Key, Hits>>);

#[derive(Debug)]
struct Hits {
    logged_at: Option<Instant>,
    /// Refused since `logged_at`.
    count: u64,
}

impl Denials {
    /// Returns counts of nothing yet.
    pub const fn new() -> Self {
        Self(Mutex::new(BTreeMap::new()))
    }

    /// Counts a refused request. If it is to be logged, returns how many there were since the last one that was.
    fn hit(&self, user: &str, permission: impl Into<Option<Permission>>) -> Option<u64> {
        let now = Instant::now();
        let mut entries = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut key = Some((user.to_owned(), permission.into()));
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
        let (host, client) =
            (sender.and_then(|sender| sender.host.as_deref()), sender.and_then(|s| s.client.as_deref()));
        let key = sender.map_or("", |sender| sender.user.as_str());
        if let Some(count) = DENIALS.hit(key, permission) {
            let (permission, error) = (Some(permission), refusal.error.message.as_str());
            NatsRefusal { key, caller, permission, host, client, error }.log("control plane", count);
        }
        refusal
    }
}

impl NatsRefusal<'_> {
    /// Counts it among others.
    pub fn count(self, among: &Denials) {
        if let Some(count) = among.hit(self.key, self.permission) {
            self.log("NATS", count);
        }
    }

    fn log(self, by: &str, count: u64) {
        let Self { key, caller, permission, host, client, error } = self;
        let user = caller.map_or(key, |caller| caller.name.as_str());
        let (id, role) = (caller.map(|caller| caller.id.as_str()), caller.map(|caller| caller.role.as_str()));
        let (permission, host, client) = (permission.map(Permission::as_str), host.map(shown), client.map(shown));
        tracing::warn!(user, id, key, role, permission, host, client, by, count, error, "requests were refused");
    }
}

/// A text that a client chose, as far as it may be in a log: the beginning, and nothing that could be a secret.
pub fn shown(text: &str) -> String {
    let words = text.split_inclusive(|c: char| !is_of_secrets(c));
    let shown = words.map(|word| if is_like_secret(word) { "[redacted]" } else { word }).collect::<String>();
    shown.chars().take(TEXT_MAX).collect()
}

/// Whether a character occurs in seeds and in the parts of JWTs.
fn is_of_secrets(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '_' | '-')
}

/// Whether a word may be a seed, or a part of a JWT. A public key begins with another letter.
fn is_like_secret(word: &str) -> bool {
    word.starts_with("eyJ") || (word.len() >= SECRET_MIN && !PUBLIC.iter().any(|kind| word.starts_with(*kind)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn each_user_and_permission_is_logged_once_in_an_interval() {
        let denials = Denials::new();
        assert_eq!(denials.hit("alice", Permission::VmDelete), Some(1));
        assert_eq!(denials.hit("alice", Permission::VmDelete), None);
        assert_eq!(denials.hit("bob", Permission::VmDelete), Some(1), "another user");
        assert_eq!(denials.hit("alice", Permission::NetworkManage), Some(1), "another permission");
        tokio::time::advance(INTERVAL).await;
        assert_eq!(denials.hit("alice", Permission::VmDelete), Some(2));
    }

    #[test]
    fn what_may_be_a_secret_is_not_shown() {
        let (seed, key) = (format!("SU{}", "A".repeat(56)), format!("U{}", "B".repeat(55)));
        assert_eq!(shown(&format!("x.{seed}.y")), "x.[redacted]y");
        assert_eq!(shown(&format!("otherix.req.v1.{key}.vm.list")), format!("otherix.req.v1.{key}.vm.list"));
        assert!(!shown(&format!("eyJhbGciOiJlZDI1NTE5In0.eyJzdWIiOiJVIn0.{}", "c".repeat(86))).contains("eyJ"));
        assert!(!shown(&"c".repeat(86)).contains("ccc"));
        assert_eq!(shown("nats.py 2"), "nats.py 2");
        assert_eq!(shown(&"a b ".repeat(100)).len(), TEXT_MAX);
    }

    #[tokio::test(start_paused = true)]
    async fn log_and_memory_are_bounded_however_many_users_there_are() {
        let denials = Denials::new();
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
