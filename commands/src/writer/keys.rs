//! The idempotency keys that are remembered.

use std::collections::{HashMap, VecDeque};

use bytes::Bytes;
use otherix_schemas::timestamp::Timestamp;
use otherix_schemas::value::UserId;

use super::ask::IdempotencyKey;
use crate::journal::{Digest, Handled};

/// How long a key is remembered: 24 hours, in microseconds.
const KEPT_MICROS: i64 = 24 * 60 * 60 * 1_000_000;

/// What is known of a key.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Known {
    /// Nothing.
    New,
    /// The same request succeeded with this answer.
    Again(Bytes),
    /// Another request succeeded under it.
    Other,
}

/// The keys of the last 24 hours.
#[derive(Debug, Default)]
pub(super) struct Keys {
    by_key: HashMap<(UserId, String), (Digest, Bytes)>,
    by_age: VecDeque<(Timestamp, UserId, String)>,
}

impl Keys {
    /// The keys that a journal remembers.
    pub(super) fn load(handled: Vec<Handled>) -> Self {
        let mut keys = Self::default();
        for handled in handled {
            keys.remember(handled);
        }
        keys
    }

    /// What is known of a user's key.
    pub(super) fn look_up(&self, user: &UserId, key: &IdempotencyKey) -> Known {
        match self.by_key.get(&(user.clone(), key.key.clone())) {
            None => Known::New,
            Some((fingerprint, reply)) if *fingerprint == key.fingerprint => Known::Again(reply.clone()),
            Some(_) => Known::Other,
        }
    }

    /// Remembers a success.
    pub(super) fn remember(&mut self, handled: Handled) {
        let Handled { user, key, fingerprint, reply, at } = handled;
        self.by_age.push_back((at, user.clone(), key.clone()));
        self.by_key.insert((user, key), (fingerprint, reply));
    }

    /// Forgets what is too old at `now`. Says from when on keys are kept, if any was forgotten.
    pub(super) fn expire(&mut self, now: Timestamp) -> Option<Timestamp> {
        let limit = Timestamp::from_unix_micros(now.unix_micros() - KEPT_MICROS).ok()?;
        let mut forgotten = None;
        while let Some((_, user, key)) = self.by_age.pop_front_if(|(at, ..)| *at < limit) {
            self.by_key.remove(&(user, key));
            forgotten = Some(limit);
        }
        forgotten
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_kept_for_a_day() {
        let at = |hours: i64| Timestamp::from_unix_micros(hours * 3_600_000_000).unwrap();
        let user: UserId = "admin".parse().unwrap();
        let fingerprint = Digest::of(&[b"a"]);
        let key = IdempotencyKey { key: "k".to_owned(), fingerprint };
        let mut keys = Keys::load(vec![Handled {
            user: user.clone(),
            key: "k".to_owned(),
            fingerprint,
            reply: Bytes::from_static(b"yes"),
            at: at(0),
        }]);
        assert_eq!(keys.expire(at(24)), None);
        assert_eq!(keys.look_up(&user, &key), Known::Again(Bytes::from_static(b"yes")));
        let other = IdempotencyKey { fingerprint: Digest::of(&[b"b"]), ..key.clone() };
        assert_eq!(keys.look_up(&user, &other), Known::Other);
        assert_eq!(keys.look_up(&"node".parse().unwrap(), &key), Known::New, "keys are each user's own");
        assert_eq!(keys.expire(at(25)), Some(at(1)));
        assert_eq!(keys.look_up(&user, &key), Known::New);
    }
}
