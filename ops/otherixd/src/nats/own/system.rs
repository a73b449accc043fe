//! The system account of an existing NATS: which servers there are, whom they trust, and which accounts they have.
//! Every server answers, so that each request has several answers.
//!
//! Cancel-safety: every future may be dropped.

use std::time::Duration;

use bytes::Bytes;
use otherix_identity::PublicKey;
use otherix_identity::jwt::{self, Operator};
use otherix_runtime::{Runtime, SystemRuntime};
use otherix_transport::Connection;
use otherix_transport::transport::{Message, RequestError};
use serde::Deserialize;
use serde::de::IgnoredAny;
use tokio::time::{Instant, timeout_at};

use super::OwnNatsError;

/// How long servers have to answer a ping. One that has just ended may still be expected by the others.
const PING_TIMEOUT: Duration = Duration::from_secs(1);

/// How long all servers have to answer.
const ANSWERS_TIMEOUT: Duration = Duration::from_secs(3);

/// How long servers have to say that they do not have an account. Versions before 2.12 do not answer then.
const LOOKUP_TIMEOUT: Duration = Duration::from_secs(1);

/// The request that every server answers.
const PING: &str = "$SYS.REQ.SERVER.PING";

/// A server of the cluster.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub(crate) struct Server {
    pub(crate) name: String,
    pub(super) id: String,
    #[serde(rename = "ver", default)]
    pub(super) version: String,
}

/// A server's answer. The other fields follow from what was asked.
#[derive(Deserialize)]
struct Answer<T> {
    server: Server,
    #[serde(default = "Option::default")]
    data: Option<T>,
    #[serde(default)]
    error: Option<Failure>,
}

#[derive(Deserialize)]
struct Failure {
    #[serde(default)]
    description: String,
}

/// The answer to a ping.
#[derive(Deserialize)]
struct Pong {
    server: Server,
    statsz: Stats,
}

#[derive(Deserialize)]
struct Stats {
    /// How many servers this one knows, including itself.
    #[serde(default)]
    active_servers: usize,
}

/// What a server was started with.
#[derive(Deserialize)]
struct Variables {
    #[serde(default)]
    trusted_operators_jwt: Vec<String>,
}

#[derive(Deserialize)]
struct Taken {
    #[serde(default)]
    code: u16,
    #[serde(default)]
    message: String,
}

/// A user of the system account.
#[derive(Clone, Debug)]
pub(crate) struct SystemClient(Connection);

impl SystemClient {
    pub(crate) fn new(connection: Connection) -> Self {
        Self(connection)
    }

    /// All servers that are connected to each other.
    ///
    /// # Errors
    /// [`OwnNatsError::NotSystem`] or [`OwnNatsError::NoServer`].
    pub(super) async fn servers(&self) -> Result<Vec<Server>, OwnNatsError> {
        match self.0.request(Message::new(PING, Bytes::new()), ANSWERS_TIMEOUT).await {
            Ok(_) => {}
            Err(RequestError::NoResponders | RequestError::Denied { .. }) => return Err(OwnNatsError::NotSystem),
            Err(RequestError::Failed(error)) => return Err(error.into()),
            Err(RequestError::TimedOut | RequestError::Unauthenticated(_)) => return Err(OwnNatsError::NoServer),
        }
        let mut servers: Vec<Server> = Vec::new();
        self.gather(PING, Bytes::new(), PING_TIMEOUT, |answer| {
            let Ok(Pong { server, statsz }) = serde_json::from_slice(answer) else { return false };
            servers.push(server);
            servers.len() >= statsz.active_servers
        })
        .await?;
        if servers.is_empty() { Err(OwnNatsError::NoServer) } else { Ok(servers) }
    }

    /// Checks that a server takes accounts that are signed with this key. It would store others as well, and then
    /// refuse their users.
    ///
    /// # Errors
    /// [`OwnNatsError::Untrusted`] or [`OwnNatsError::NotASigningKey`].
    pub(super) async fn check_trust(&self, server: &Server, key: &PublicKey) -> Result<(), OwnNatsError> {
        let subject = format!("$SYS.REQ.SERVER.{}.VARZ", server.id);
        let mut operators = Vec::new();
        self.gather(&subject, Bytes::new(), ANSWERS_TIMEOUT, |answer| {
            let parsed = serde_json::from_slice::<Answer<Variables>>(answer).ok();
            operators.extend(parsed.and_then(|answer| answer.data).map(|data| data.trusted_operators_jwt));
            true
        })
        .await?;
        let decoded = operators.iter().flatten().filter_map(|token| jwt::decode::<Operator>(token).ok());
        let (mut is_signing, mut is_strict) = (false, false);
        for operator in decoded {
            let is_own = operator.subject == *key;
            is_signing |=
                operator.body.signing_keys.contains(key) || (is_own && !operator.body.strict_signing_key_usage);
            is_strict |= is_own && operator.body.strict_signing_key_usage;
        }
        let (server, key) = (server.name.clone(), key.clone());
        match (is_signing, is_strict) {
            (true, _) => Ok(()),
            (false, true) => Err(OwnNatsError::NotASigningKey { server, key }),
            (false, false) => Err(OwnNatsError::Untrusted { server, key }),
        }
    }

    /// The JWT of an account as each of `count` servers has it; fewer if some do not have it.
    pub(super) async fn lookup(&self, account: &PublicKey, count: usize) -> Result<Vec<String>, OwnNatsError> {
        let subject = format!("$SYS.REQ.ACCOUNT.{account}.CLAIMS.LOOKUP");
        let (mut answers, mut tokens) = (0, Vec::new());
        self.gather(&subject, Bytes::new(), LOOKUP_TIMEOUT, |answer| {
            answers += 1;
            if !answer.is_empty() {
                tokens.push(String::from_utf8_lossy(answer).into_owned());
            }
            answers >= count
        })
        .await?;
        Ok(tokens)
    }

    /// Gives an account to all `servers`.
    ///
    /// # Errors
    /// If one of them refuses it, or does not answer.
    pub(super) async fn update(&self, account: &str, token: &str, servers: &[Server]) -> Result<(), OwnNatsError> {
        let mut missing = servers.to_vec();
        let (mut refusal, mut is_nobody) = (None, false);
        self.gather("$SYS.REQ.CLAIMS.UPDATE", Bytes::from(token.to_owned()), ANSWERS_TIMEOUT, |answer| {
            let Ok(Answer { server, data, error }) = serde_json::from_slice::<Answer<Taken>>(answer) else {
                is_nobody = answer.is_empty();
                return is_nobody;
            };
            missing.retain(|other| other.id != server.id);
            let reason = match (data, error) {
                (Some(Taken { code: 200, .. }), None) => None,
                (_, Some(Failure { description })) => Some(description),
                (Some(Taken { message, .. }), None) => Some(message),
                (None, None) => Some("no reason is given".to_owned()),
            };
            let (account, server) = (account.to_owned(), server.name);
            refusal = refusal.take().or(reason.map(|reason| OwnNatsError::Refused { server, account, reason }));
            missing.is_empty()
        })
        .await?;
        if is_nobody {
            return Err(OwnNatsError::NoFullResolver);
        }
        if let Some(refusal) = refusal {
            return Err(refusal);
        }
        let names: Vec<&str> = missing.iter().map(|server| server.name.as_str()).collect();
        let silent = || OwnNatsError::Silent { servers: names.join(", "), account: account.to_owned() };
        if names.is_empty() { Ok(()) } else { Err(silent()) }
    }

    /// Whether the server that this connection is to knows of accounts.
    pub(super) async fn has_full_resolver(&self) -> Result<bool, OwnNatsError> {
        let request = Message::new("$SYS.REQ.CLAIMS.LIST", Bytes::new());
        match self.0.request(request, ANSWERS_TIMEOUT).await {
            Ok(answer) => Ok(serde_json::from_slice::<Answer<IgnoredAny>>(&answer.payload).is_ok()),
            Err(RequestError::NoResponders) => Ok(false),
            Err(RequestError::Failed(error)) => Err(error.into()),
            Err(RequestError::TimedOut | RequestError::Denied { .. } | RequestError::Unauthenticated(_)) => {
                Err(OwnNatsError::NoServer)
            }
        }
    }

    /// Sends a request, and passes on the answers, until one is the last or the time is over.
    async fn gather(
        &self,
        subject: &str,
        payload: Bytes,
        limit: Duration,
        mut is_last: impl FnMut(&[u8]) -> bool,
    ) -> Result<(), OwnNatsError> {
        let end = Instant::now() + limit;
        let inbox = format!("_INBOX_{}.{}", self.0.user(), SystemRuntime.uuid_v4().simple());
        let mut answers = self.0.subscribe(inbox.clone()).await?;
        self.0.publish(Message { reply: Some(inbox), ..Message::new(subject.to_owned(), payload) }).await?;
        while let Ok(Some(answer)) = timeout_at(end, answers.next()).await {
            if is_last(&answer.payload) {
                break;
            }
        }
        Ok(())
    }
}
