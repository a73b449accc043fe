//! Which keys an account's JWT revokes.
//!
//! Keys that nodes had stay revoked for good, and a server takes no JWT of more than 1 MiB, nor starts with one. So
//! keys that were revoked before the oldest valid credential was issued are not listed: what was issued until then is
//! revoked as a whole. Of the others, the latest are listed.

use std::collections::BTreeMap;

use otherix_schemas::enrollment::RegisteredToken;
use otherix_schemas::timestamp::Timestamp;
use otherix_schemas::user::{Callers, RegisteredUser};

/// Stands for all keys.
pub(super) const ALL: &str = "*";

/// Most keys that an account revokes: 70 bytes of JSON each, 94 in the JWT.
pub(crate) const LISTED_MAX: usize = 10_000;

/// Public keys whose JWTs are refused if they were issued at this Unix time, in seconds, or before.
pub(crate) type RevokedKeys = BTreeMap<String, u64>;

/// The keys that an account refuses.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct AccountRevocations {
    pub(crate) keys: RevokedKeys,
    /// Keys that have no space: NATS accepts their credentials. The services refuse their requests.
    pub(crate) unlisted: usize,
    /// The oldest valid credential, if keys have no space: with another one, earlier ones would be revoked as a whole.
    pub(crate) oldest: Option<OldestCredential>,
}

/// The valid credential that was issued first.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct OldestCredential {
    /// Unix time in seconds.
    pub(crate) issued_at: u64,
    /// Whose it is: the name of a user or node, or the id of a join token.
    pub(crate) holder: String,
}

impl AccountRevocations {
    /// The revocations of an account with these revoked keys, and with `oldest` of its valid credentials.
    pub(crate) fn new(revoked: impl Iterator<Item = (String, u64)>, oldest: Option<OldestCredential>) -> Self {
        let (mut all_until, mut listed) = (None, Vec::new());
        for (key, second) in revoked {
            if oldest.as_ref().is_some_and(|oldest| second < oldest.issued_at) {
                all_until = all_until.max(Some(second));
            } else {
                listed.push((key, second));
            }
        }
        let unlisted = listed.len().saturating_sub(LISTED_MAX);
        if unlisted > 0 {
            listed.sort_unstable_by(|(_, one), (_, other)| other.cmp(one));
            listed.truncate(LISTED_MAX);
        }
        let all = all_until.map(|second| (ALL.to_owned(), second));
        let oldest = oldest.filter(|_| unlisted > 0);
        Self { keys: listed.into_iter().chain(all).collect(), unlisted, oldest }
    }
}

/// The oldest credential of a user that is valid at `now`. Without a clock, none has expired.
pub(super) fn oldest_of_users(callers: &Callers, now: Option<Timestamp>) -> Option<OldestCredential> {
    let is_valid = |user: &&RegisteredUser| user.revoked_at.is_none() && is_before(now, user.expires_at);
    callers
        .users()
        .values()
        .filter(is_valid)
        .filter_map(|user| oldest(user.valid_after + 1, || user.name.to_string()))
        .min()
}

/// The oldest credential of a node, or in a join token, that is valid at `now`. Without a clock, none has expired.
pub(super) fn oldest_of_nodes(callers: &Callers, now: Option<Timestamp>) -> Option<OldestCredential> {
    let nodes = callers.enrollments().nodes().values();
    let keys = nodes.flat_map(|keys| keys.present.iter().chain(&keys.offered).map(move |key| (key, &keys.name)));
    let of_nodes = keys.filter_map(|(key, name)| oldest(key.issued_at, || name.to_string()));
    let is_valid = |token: &RegisteredToken| is_before(now, Some(token.expires_at));
    let tokens = callers.enrollments().tokens().iter().filter(|(_, token)| is_valid(token));
    of_nodes.chain(tokens.filter_map(|(id, token)| oldest(token.issued_at(), || id.to_string()))).min()
}

fn is_before(now: Option<Timestamp>, expires_at: Option<Timestamp>) -> bool {
    expires_at.zip(now).is_none_or(|(at, now)| now < at)
}

fn oldest(issued_at: i64, holder: impl FnOnce() -> String) -> Option<OldestCredential> {
    Some(OldestCredential { issued_at: u64::try_from(issued_at).ok()?, holder: holder() })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(issued_at: u64) -> OldestCredential {
        OldestCredential { issued_at, holder: "node-1".to_owned() }
    }

    fn revoked(seconds: impl IntoIterator<Item = u64>) -> impl Iterator<Item = (String, u64)> {
        seconds.into_iter().enumerate().map(|(number, second)| (format!("{number:05}"), second))
    }

    #[test]
    fn what_was_revoked_before_the_oldest_credential_was_issued_is_not_listed() {
        let keys = |oldest| AccountRevocations::new(revoked([5, 7, 8, 9]), oldest);
        let listed = |keys: &[(&str, u64)]| {
            let keys = keys.iter().map(|(key, second)| ((*key).to_owned(), *second)).collect();
            AccountRevocations { keys, unlisted: 0, oldest: None }
        };
        assert_eq!(keys(None), listed(&[("00000", 5), ("00001", 7), ("00002", 8), ("00003", 9)]));
        assert_eq!(keys(Some(at(5))), keys(None), "a credential of the same second is valid");
        assert_eq!(keys(Some(at(8))), listed(&[("*", 7), ("00002", 8), ("00003", 9)]));
        assert_eq!(keys(Some(at(100))), listed(&[("*", 9)]));
    }

    #[test]
    fn the_latest_are_listed_if_there_are_too_many() {
        let extra = 3;
        let all = u64::try_from(LISTED_MAX).unwrap() + extra;
        let AccountRevocations { keys, unlisted, oldest } = AccountRevocations::new(revoked(10..all + 10), Some(at(5)));
        assert_eq!((keys.len(), unlisted, oldest), (LISTED_MAX, 3, Some(at(5))));
        assert_eq!(keys.values().min(), Some(&(10 + extra)));
    }
}
