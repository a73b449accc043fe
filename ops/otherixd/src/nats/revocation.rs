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
use otherix_schemas::user::Callers;
use otherix_transport::Connection;
use otherix_transport::transport::{Message, RequestError};
use serde::Deserialize;
use tokio::sync::watch;
use tokio::time::{sleep, timeout};

use super::accounts::{AccountName, Revocations};
use super::error::NatsError;
use super::identity::Identity;

/// The subject on which the server takes an account's JWT.
const UPDATE: &str = "$SYS.REQ.CLAIMS.UPDATE";

/// Longest wait for the live feed before keys are revoked.
const PASS_TIMEOUT: Duration = Duration::from_millis(300);

/// Time-out for the server's answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(2);

/// Delays between attempts.
const RETRY_MIN: Duration = Duration::from_millis(10);
const RETRY_MAX: Duration = Duration::from_secs(1);

/// The accounts whose users can be revoked.
const ACCOUNTS: [AccountName; 2] = [AccountName::Clients, AccountName::Nodes];

/// Pushes revocations to the server.
pub(crate) struct RevocationPusher {
    pub(crate) identity: Arc<Identity>,
    /// A connection as a user of the system account that may change accounts.
    pub(crate) claims: Connection,
    pub(crate) callers: watch::Receiver<Callers>,
    /// The key that all nodes of an earlier version shared.
    pub(crate) former_node: Option<PublicKey>,
    /// How far events are on the stream, and how far they are durable.
    pub(crate) relayed: watch::Receiver<Relayed>,
    pub(crate) head: watch::Receiver<Position>,
    /// What the server is started with.
    pub(crate) revoked: watch::Sender<Revocations>,
}

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
    #[error("the clock of this machine is out of range")]
    Clock,
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

/// The revoked keys, as accounts have them.
pub(crate) fn revocations(callers: &Callers, former_node: Option<&PublicKey>) -> Revocations {
    let revoked = callers.revoked().iter().chain(callers.enrollments().revoked());
    let parsed = revoked.filter_map(|(key, second)| {
        let key: PublicKey = key.as_str().parse().ok()?;
        Some((key, u64::try_from(*second).ok()?))
    });
    parsed.chain(former_node.map(|key| (key.clone(), FOR_EVER))).collect()
}

impl RevocationPusher {
    /// Runs until there are no callers any more: the writer has ended.
    pub(crate) async fn run(mut self) {
        let mut pushed = self.revoked.borrow().clone();
        let mut backoff = Backoff::new(RETRY_MIN, RETRY_MAX, &SystemRuntime);
        let refused = LogLimit::default();
        loop {
            // Also those since the last attempt, if that failed.
            let wanted = revocations(&self.callers.borrow_and_update(), self.former_node.as_ref());
            if wanted != pushed {
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
                tracing::info!(keys = wanted.len(), "the NATS server refuses all revoked credentials");
                backoff.reset();
                pushed = wanted;
            }
            if self.callers.changed().await.is_err() {
                // The control plane is about to end with the writer.
                return std::future::pending().await;
            }
        }
    }

    /// Waits until the live feed has the events so far: a node that is removed learns of it by the decision, and its
    /// connection ends afterwards. A stream that is not available does not keep revocations waiting for long.
    async fn let_decisions_pass(&mut self) {
        let until = *self.head.borrow();
        let passed = self.relayed.wait_for(|relayed| relayed.position >= until);
        let _either_way = timeout(PASS_TIMEOUT, passed).await;
    }

    async fn push_once(&self, revoked: &Revocations) -> Result<(), PushError> {
        let now = SystemRuntime.now().map_err(|_| PushError::Clock)?.unix_micros() / 1_000_000;
        let now = u64::try_from(now).map_err(|_| PushError::Clock)?;
        for name in ACCOUNTS {
            let account = name.as_str();
            let token = self.identity.account_jwt(name, revoked, now);
            let token = token.map_err(|source| PushError::Sign { account, source: Box::new(source) })?;
            let message = Message::new(UPDATE.to_owned(), Bytes::from(token));
            let answer = self.claims.request(message, ANSWER_TIMEOUT).await?.payload;
            let result: Option<UpdateAnswer> = serde_json::from_slice(&answer).ok();
            if result.and_then(|answer| answer.data).is_none_or(|result| result.code != 200) {
                let answer = String::from_utf8_lossy(&answer).escape_debug().to_string();
                return Err(PushError::Refused { account, answer });
            }
        }
        Ok(())
    }
}
