//! Tells the server whose credentials are revoked: it then ends their connections, and refuses new ones.
//!
//! Revocations are part of the accounts' JWTs, which are also in the configuration that the server is started with. So
//! nothing is lost if either process ends before the server was told.
//!
//! Cancel-safety: [`RevocationPusher::run`] may be dropped at any await.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use otherix_commands::relay::Relayed;
use otherix_identity::PublicKey;
use otherix_runtime::{Backoff, LogLimit, Runtime, SystemRuntime};
use otherix_schemas::error::Causes;
use otherix_schemas::position::Position;
use otherix_schemas::timestamp::Timestamp;
use otherix_schemas::user::{Callers, RevokedKey};
use otherix_schemas::value::UserId;
use otherix_transport::Connection;
use otherix_transport::transport::{Message, RequestError};
use serde::Deserialize;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout, timeout_at};

use super::accounts::{AccountName, Revocations};
use super::error::NatsError;
use super::identity::Identity;
use super::own::{AccountPusher, Pushed, Wanted, label, push_all};
use super::revoked_keys::{
    ALL, AccountRevocations, OldestCredential, RevokedKeys, is_before, oldest_of_nodes, oldest_of_users,
};
use super::unix_now;

/// The subject on which the server takes an account's JWT.
const UPDATE: &str = "$SYS.REQ.CLAIMS.UPDATE";

/// Longest wait for the live feed before keys are revoked.
const PASS_TIMEOUT: Duration = Duration::from_millis(300);

/// Time-out for the server's answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(2);

/// Delays between attempts.
const RETRY_MIN: Duration = Duration::from_millis(10);
const RETRY_MAX: Duration = Duration::from_secs(1);

/// Interval at which revocations that are not needed any more are removed.
const EXPIRY_CHECK: Duration = Duration::from_secs(3600);

/// Interval at which servers of somebody else are asked whether they have the accounts as they should be.
const OWN_CHECK: Duration = Duration::from_secs(30);

/// The accounts whose users can be revoked.
const ACCOUNTS: [AccountName; 3] = [AccountName::Clients, AccountName::Nodes, AccountName::State];

/// Pushes revocations to the server.
pub(crate) struct RevocationPusher {
    pub(crate) sink: RevocationSink,
    pub(crate) callers: watch::Receiver<Callers>,
    /// The key that all nodes of an earlier version shared.
    pub(crate) former_node: Option<PublicKey>,
    /// How far events are on the stream, and how far they are durable.
    pub(crate) relayed: watch::Receiver<Relayed>,
    pub(crate) head: watch::Receiver<Position>,
    /// What the server is started with.
    pub(crate) revoked: watch::Sender<Revocations>,
}

/// Who is told of revocations.
pub(crate) enum RevocationSink {
    /// The embedded server, on a connection as a user of the system account that may change accounts.
    Embedded { identity: Arc<Identity>, claims: Connection },
    /// All servers of an existing NATS.
    Own(AccountPusher),
    /// Nobody: whoever has the operator's key of an existing NATS has to do it.
    Nobody,
}

/// What to do where nobody is told.
pub(crate) const PUSH_HINT: &str = "whoever has the operator's key of NATS has to run `otherixd accounts push`, or \
    `otherixd accounts print` and then `nsc`, with this state folder";

/// What the log says at the start where nobody is told.
pub(crate) const REVOKED_BY_SERVICES: &str =
    "NATS is not told of revocations: otherixd has no key of its operator (--nats-operator-key)";

/// What the log says after a revocation, again and again.
const UNTOLD: &str = "only the services refuse what was revoked: with revoked credentials, NATS still delivers events";

/// The server has not taken an account.
#[derive(Debug, thiserror::Error)]
enum PushError {
    #[error("the server does not answer")]
    Request(#[from] RequestError),
    #[error("the server refuses the account {account}: {answer}")]
    Refused { account: &'static str, answer: String },
    #[error("the account {account} cannot be signed")]
    Sign {
        account: &'static str,
        #[source]
        source: Box<NatsError>,
    },
    #[error(transparent)]
    Own(Box<NatsError>),
}

/// The server's answer.
#[derive(Deserialize)]
struct UpdateAnswer {
    #[serde(default)]
    data: Option<UpdateResult>,
}

#[derive(Deserialize)]
struct UpdateResult {
    #[serde(default)]
    code: u16,
}

/// No JWT is issued later (Unix time in seconds).
const FOR_EVER: u64 = u32::MAX as u64;

/// The revoked keys, as accounts have them at `now`. Credentials that have expired need no revocation.
pub(crate) fn revocations(callers: &Callers, former_node: Option<&PublicKey>, now: Option<Timestamp>) -> Revocations {
    let in_account = |(key, second): (&UserId, &i64)| Some((key.to_string(), u64::try_from(*second).ok()?));
    let is_needed = |key: &RevokedKey| is_before(now, key.expires_at);
    let clients = callers.revoked().iter().filter(|(_, revoked)| is_needed(revoked));
    let nodes = callers.enrollments().revoked().iter().filter_map(in_account);
    let clients = clients.filter_map(|(key, revoked)| in_account((key, &revoked.valid_after)));
    let nodes = nodes.chain(former_node.map(|key| (key.to_string(), FOR_EVER)));
    let second = now.and_then(|now| u64::try_from(now.unix_micros().div_euclid(1_000_000)).ok());
    Revocations {
        clients: AccountRevocations::new(clients, oldest_of_users(callers, now), second),
        nodes: AccountRevocations::new(nodes, oldest_of_nodes(callers, now), second),
    }
}

/// Whether `later` revokes something that `earlier` does not.
fn has_more(earlier: &RevokedKeys, later: &RevokedKeys) -> bool {
    let all = earlier.get(ALL);
    later.iter().any(|(key, second)| {
        if key == ALL {
            // Until when all are revoked, somebody was revoked.
            !earlier.values().any(|known| known == second)
        } else {
            earlier.get(key).max(all) < Some(second)
        }
    })
}

impl RevocationPusher {
    /// Runs until there are no callers any more: the writer has ended.
    pub(crate) async fn run(mut self) {
        let mut pushed = self.revoked.borrow().clone();
        let mut backoff = Backoff::new(RETRY_MIN, RETRY_MAX, &SystemRuntime);
        let refused = LogLimit::default();
        let (mut is_check_due, mut is_untold) = (false, false);
        // Credentials expire without an event, and servers of somebody else may lose what they were told.
        let is_own = matches!(self.sink, RevocationSink::Own(_));
        let interval = if is_own { OWN_CHECK } else { EXPIRY_CHECK };
        let mut due = Instant::now() + interval;
        loop {
            // Also those since the last attempt, if that failed.
            let wanted = {
                let callers = self.callers.borrow_and_update();
                revocations(&callers, self.former_node.as_ref(), SystemRuntime.now().ok())
            };
            if wanted != pushed || is_check_due {
                // First, so that a server that is started now has them.
                self.revoked.send_replace(wanted.clone());
                self.let_decisions_pass().await;
                if let Err(error) = self.push_once(&wanted).await {
                    if let Some(count) = refused.hit() {
                        tracing::warn!(error = %Causes(&error), count, "revoked credentials still work: trying again");
                    }
                    sleep(backoff.next_delay()).await;
                    continue;
                }
                if wanted != pushed {
                    is_untold |= self.log(&pushed, &wanted);
                }
                backoff.reset();
                is_check_due = false;
                pushed = wanted;
            }
            match timeout_at(due, self.callers.changed()).await {
                Ok(Ok(())) => {}
                // The control plane is about to end with the writer.
                Ok(Err(_)) => return std::future::pending().await,
                Err(_elapsed) => {
                    due = Instant::now() + interval;
                    is_check_due = is_own;
                    if is_untold {
                        tracing::warn!(hint = PUSH_HINT, "{UNTOLD}, unless that was done since");
                    }
                }
            }
        }
    }

    /// Says who refuses what was revoked from now on. Returns whether NATS was to be told, and nobody does it.
    fn log(&self, earlier: &Revocations, revoked: &Revocations) -> bool {
        let Revocations { clients, nodes } = revoked;
        log_unlisted(revoked);
        let has_more = has_more(&earlier.clients.keys, &clients.keys) || has_more(&earlier.nodes.keys, &nodes.keys);
        let (clients, nodes) = (clients.keys.len(), nodes.keys.len());
        if !matches!(self.sink, RevocationSink::Nobody) {
            tracing::info!(clients, nodes, "the NATS server refuses revoked credentials");
            return false;
        }
        if has_more {
            tracing::warn!(clients, nodes, hint = PUSH_HINT, "{UNTOLD}");
        }
        has_more
    }

    /// Waits until the live feed has the events so far: a node that is removed learns of it by the decision, and its
    /// connection ends afterwards. A stream that is not available does not keep revocations waiting for long.
    async fn let_decisions_pass(&mut self) {
        let until = *self.head.borrow();
        let passed = self.relayed.wait_for(|relayed| relayed.position >= until);
        let _either_way = timeout(PASS_TIMEOUT, passed).await;
    }

    async fn push_once(&self, revoked: &Revocations) -> Result<(), PushError> {
        let own = |error: NatsError| PushError::Own(Box::new(error));
        let (identity, claims) = match &self.sink {
            RevocationSink::Embedded { identity, claims } => (identity, claims),
            RevocationSink::Own(pusher) => {
                let callers = self.callers.borrow().clone();
                let wanted = Wanted { revoked, callers: &callers, is_dry_run: false };
                let pushed = push_all(pusher, &wanted, |name, pushed| match pushed {
                    Pushed::Changed { earlier, missing } => {
                        tracing::info!(
                            account = label(name),
                            earlier,
                            missing,
                            "pushed an account to the NATS servers"
                        );
                    }
                    Pushed::Same => {}
                });
                return pushed.await.map(drop).map_err(own);
            }
            RevocationSink::Nobody => return Ok(()),
        };
        let now = unix_now().map_err(own)?;
        for name in ACCOUNTS {
            let account = name.as_str();
            let token = identity.account_jwt(name, revoked, now);
            let token = token.map_err(|source| PushError::Sign { account, source: Box::new(source) })?;
            let message = Message::new(UPDATE.to_owned(), Bytes::from(token));
            let answer = claims.request(message, ANSWER_TIMEOUT).await?.payload;
            let result: Option<UpdateAnswer> = serde_json::from_slice(&answer).ok();
            if result.and_then(|answer| answer.data).is_none_or(|result| result.code != 200) {
                let answer = String::from_utf8_lossy(&answer).escape_debug().to_string();
                return Err(PushError::Refused { account, answer });
            }
        }
        Ok(())
    }
}

fn log_unlisted(Revocations { clients, nodes }: &Revocations) {
    let hints = [
        (clients, "`otherix user rotate` for the user, or delete it"),
        (nodes, "`otherix-agent rotate-key --key nats` on the node, or revoke the join token"),
    ];
    for (account, hint) in hints {
        if let Some(OldestCredential { holder, issued_at }) = &account.oldest {
            let unlisted = account.unlisted;
            tracing::error!(
                unlisted,
                holder,
                issued_at,
                hint,
                "the NATS server accepts earlier revoked credentials: there is no space for more while a credential \
                that was issued before them is valid"
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const KEY: &str = "UDXU4RCSJNZOIQHZNWXHXORDPRTGNJAHAHFRGZNEEJCPQTT2M7NLCNF4";
    const OTHER: &str = "UAEQSCIJBEEQSCIJBEEQSCIJBEEQSCIJBEEQSCIJBEEQSCIJBEEQTVLI";

    #[test]
    fn only_what_is_added_is_more() {
        let keys = |keys: &[(&str, u64)]| -> RevokedKeys {
            keys.iter().map(|(key, second)| ((*key).to_owned(), *second)).collect()
        };
        let earlier = keys(&[(KEY, 5), (OTHER, 9), (ALL, 3)]);
        let has_more = |later: &[(&str, u64)]| super::has_more(&earlier, &keys(later));
        // Expired, or revoked with all others.
        for later in [&[][..], &[(KEY, 5)], &[(OTHER, 9), (ALL, 5)], &[("A", 3), (ALL, 3)]] {
            assert!(!has_more(later), "{later:?}");
        }
        for later in [&[(KEY, 6)][..], &[("A", 4), (ALL, 3)], &[(ALL, 7)]] {
            assert!(has_more(later), "{later:?}");
        }
    }

    #[test]
    fn a_revocation_is_kept_until_its_credentials_have_expired_and_in_its_account_only() {
        let day = 24 * 3600 * 1_000_000;
        let at = |micros| Timestamp::from_unix_micros(micros).unwrap();
        let revoked = json!({
            KEY: { "valid_after": 1, "expires_at": at(day) }, OTHER: { "valid_after": 2, "expires_at": null },
        });

        let callers: Callers = serde_json::from_value(json!({
            "users": {}, "revoked": revoked, "enrollments": { "tokens": {}, "nodes": {}, "revoked": { KEY: 3 } },
        }))
        .unwrap();
        let former: PublicKey = OTHER.parse().unwrap();
        let nodes: RevokedKeys = [(KEY.to_owned(), 3), (OTHER.to_owned(), FOR_EVER)].into();
        let check = |now, clients: RevokedKeys| {
            let revoked = revocations(&callers, Some(&former), now);
            assert_eq!((&revoked.clients.keys, &revoked.nodes.keys), (&clients, &nodes));
        };
        for now in [None, Some(at(day)), Some(at(2 * day - 1))] {
            check(now, [(KEY.to_owned(), 1), (OTHER.to_owned(), 2)].into());
        }
        check(Some(at(2 * day)), [(OTHER.to_owned(), 2)].into());
        assert!(callers.was_registered(&KEY.parse().unwrap()), "it is never registered again");
    }
}
