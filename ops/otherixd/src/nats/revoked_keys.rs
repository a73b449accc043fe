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

/// How long a credential counts after it has expired, in microseconds: a day, because the server's clock may be another
/// one.
const EXPIRED_KEPT: i64 = 24 * 3600 * 1_000_000;

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
    /// The revocations of an account with these revoked keys, and with `oldest` of its valid credentials. What is
    /// revoked as a whole ends before `now` (Unix time in seconds): credentials are issued from then on.
    pub(crate) fn new(
        revoked: impl Iterator<Item = (String, u64)>,
        oldest: Option<OldestCredential>,
        now: Option<u64>,
    ) -> Self {
        let revoked: Vec<_> = revoked.collect();
        // Without a valid credential, keys need to be revoked as a whole only where they have no space.
        let before = match &oldest {
            Some(oldest) => Some(now.map_or(oldest.issued_at, |now| oldest.issued_at.min(now))),
            None => now.filter(|_| revoked.len() > LISTED_MAX),
        };
        let (whole, mut listed): (Vec<_>, Vec<_>) =
            revoked.into_iter().partition(|(_, second)| before.is_some_and(|before| *second < before));
        let all_until = whole.into_iter().map(|(_, second)| second).max();
        let unlisted = listed.len().saturating_sub(LISTED_MAX);
        keep_latest(&mut listed);
        let all = all_until.map(|second| (ALL.to_owned(), second));
        let oldest = oldest.filter(|_| unlisted > 0);
        Self { keys: listed.into_iter().chain(all).collect(), unlisted, oldest }
    }
}

/// Drops all but the latest keys that have space. Of those of the same second, always the same ones.
fn keep_latest(listed: &mut Vec<(String, u64)>) {
    if listed.len() > LISTED_MAX {
        listed.sort_unstable_by(|(key, second), (other_key, other)| (other, key).cmp(&(second, other_key)));
        listed.truncate(LISTED_MAX);
    }
}

/// The latest of these keys that have space, and what is revoked as a whole.
pub(super) fn with_space(mut keys: RevokedKeys) -> RevokedKeys {
    let all = keys.remove_entry(ALL);
    let mut listed: Vec<_> = keys.into_iter().collect();
    keep_latest(&mut listed);
    listed.into_iter().chain(all).collect()
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
    let is_valid = |token: &RegisteredToken| token.revoked_at.is_none() && is_before(now, Some(token.expires_at));
    let tokens = callers.enrollments().tokens().iter().filter(|(_, token)| is_valid(token));
    of_nodes.chain(tokens.filter_map(|(id, token)| oldest(token.issued_at(), || id.to_string()))).min()
}

/// Whether a credential is valid, or was within a day before `now`: a clock may have been set forward by mistake.
pub(super) fn is_before(now: Option<Timestamp>, expires_at: Option<Timestamp>) -> bool {
    let until = expires_at.map(|at| at.unix_micros().saturating_add(EXPIRED_KEPT));
    until.zip(now).is_none_or(|(until, now)| now.unix_micros() < until)
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
        let keys = |oldest| AccountRevocations::new(revoked([5, 7, 8, 9]), oldest, None);
        let listed = |keys: &[(&str, u64)]| {
            let keys = keys.iter().map(|(key, second)| ((*key).to_owned(), *second)).collect();
            AccountRevocations { keys, unlisted: 0, oldest: None }
        };
        assert_eq!(keys(None), listed(&[("00000", 5), ("00001", 7), ("00002", 8), ("00003", 9)]));
        assert_eq!(keys(Some(at(5))), keys(None), "a credential of the same second is valid");
        assert_eq!(keys(Some(at(8))), listed(&[("*", 7), ("00002", 8), ("00003", 9)]));
        assert_eq!(keys(Some(at(100))), listed(&[("*", 9)]));
        let keys = AccountRevocations::new(revoked([5, 7, 8, 9]), Some(at(100)), Some(8));
        assert_eq!(keys, listed(&[("*", 7), ("00002", 8), ("00003", 9)]), "credentials are issued from now on");
    }

    #[test]
    fn without_a_valid_credential_all_are_revoked_as_a_whole_if_they_have_no_space() {
        let all = u64::try_from(LISTED_MAX).unwrap() + 1;
        let keys = AccountRevocations::new(revoked((1..all).chain([u64::from(u32::MAX)])), None, Some(all + 1));
        let expected = [(ALL.to_owned(), all - 1), (format!("{LISTED_MAX:05}"), u64::from(u32::MAX))];
        assert_eq!((keys.keys, keys.unlisted), (expected.into(), 0));
        assert_eq!(AccountRevocations::new(revoked(1..all), None, Some(all)).keys.len(), LISTED_MAX);
    }

    #[test]
    fn what_is_merged_has_space() {
        let all = u64::try_from(LISTED_MAX).unwrap() + 3;
        let merged = |seconds: std::ops::Range<u64>| {
            let all = (ALL.to_owned(), 1);
            with_space(revoked(seconds).chain([all]).collect())
        };
        let keys = merged(10..all + 10);
        assert_eq!((keys.len(), keys.get(ALL)), (LISTED_MAX + 1, Some(&1)));
        assert_eq!(keys.values().filter(|second| **second > 1).min(), Some(&13));
        assert_eq!(merged(10..20).len(), 11);
    }

    #[test]
    fn revoked_tokens_are_no_credentials_and_expired_ones_are_for_a_day() {
        let day = 24 * 3600 * 1_000_000;
        let at = |micros| Timestamp::from_unix_micros(micros).unwrap();
        let (id, key) =
            ("018f0000-0000-7000-8000-000000000001", "UDXU4RCSJNZOIQHZNWXHXORDPRTGNJAHAHFRGZNEEJCPQTT2M7NLCNF4");
        let oldest = |revoked_at: Option<Timestamp>, now| {
            let token = serde_json::json!({
                "node_name": null, "key": key, "max_uses": 1, "uses": 0, "created_at": at(5_000_000),
                "expires_at": at(day), "revoked_at": revoked_at, "version": 1,
            });
            let enrollments = serde_json::json!({ "tokens": { id: token }, "nodes": {}, "revoked": {} });
            let callers = serde_json::json!({ "users": {}, "revoked": {}, "enrollments": enrollments });
            let callers: Callers = serde_json::from_value(callers).unwrap();
            oldest_of_nodes(&callers, Some(at(now))).map(|oldest| oldest.issued_at)
        };
        assert_eq!(oldest(None, 2 * day - 1), Some(5));
        assert_eq!(oldest(None, 2 * day), None);
        assert_eq!(oldest(Some(at(6_000_000)), 7_000_000), None);
    }

    #[test]
    fn the_latest_are_listed_if_there_are_too_many() {
        let extra = 3;
        let all = u64::try_from(LISTED_MAX).unwrap() + extra;
        let revoked = AccountRevocations::new(revoked(10..all + 10), Some(at(5)), None);
        let AccountRevocations { keys, unlisted, oldest } = revoked;
        assert_eq!((keys.len(), unlisted, oldest), (LISTED_MAX, 3, Some(at(5))));
        assert_eq!(keys.values().min(), Some(&(10 + extra)));
    }
}
