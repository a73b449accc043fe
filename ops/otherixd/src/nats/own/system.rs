//! The system account of an existing NATS: which servers there are, whom they trust, and which accounts they have.
//! Every server answers, so that each request has several answers.
//!
//! Cancel-safety: every future may be dropped.

use std::time::Duration;

use bytes::Bytes;
use otherix_identity::PublicKey;
use otherix_identity::jwt::{self, Claims, Operator};
use otherix_runtime::{Runtime, SystemRuntime};
use otherix_transport::Connection;
use otherix_transport::transport::{Message, RequestError};
use serde::de::{Error, IgnoredAny};
use serde::{Deserialize, Deserializer};
use tokio::time::{Instant, timeout_at};

use super::OwnNatsError;

/// How long servers have to answer a ping. One that has just ended may still be expected by the others.
const PING_TIMEOUT: Duration = Duration::from_secs(1);

/// How long all servers have to answer.
const ANSWERS_TIMEOUT: Duration = Duration::from_secs(3);

/// How long servers have to say that they do not have an account. Versions before 2.12 do not answer then.
const LOOKUP_TIMEOUT: Duration = Duration::from_secs(1);

/// How long a server may take to say that a request is not permitted.
const DENIAL_TIMEOUT: Duration = Duration::from_millis(500);

/// The request that every server answers.
const PING: &str = "$SYS.REQ.SERVER.PING";

/// A server of the cluster.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub(crate) struct Server {
    #[serde(deserialize_with = "text")]
    pub(crate) name: String,
    /// Its public key. Part of subjects.
    #[serde(deserialize_with = "token")]
    pub(super) id: String,
    #[serde(rename = "ver", default, deserialize_with = "text")]
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
    #[serde(default, deserialize_with = "text")]
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
    #[serde(default, deserialize_with = "text")]
    message: String,
}

/// A part of a subject that stands for nothing else.
fn token<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    let token = String::deserialize(deserializer)?;
    let is_plain = !token.is_empty() && token.bytes().all(|byte| byte.is_ascii_alphanumeric());
    if is_plain { Ok(token) } else { Err(D::Error::custom("not the id of a server")) }
}

/// Longest text of an answer that is logged or printed, in bytes.
const TEXT_MAX: usize = 256;

/// A text that says what it says in one line, whoever has written it.
fn text<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    let mut escaped = String::new();
    for character in String::deserialize(deserializer)?.chars().map(char::escape_debug) {
        if escaped.len() + character.clone().map(char::len_utf8).sum::<usize>() > TEXT_MAX {
            break;
        }
        escaped.extend(character);
    }
    Ok(escaped)
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
        let (mut servers, mut known): (Vec<Server>, usize) = (Vec::new(), 0);
        self.gather(PING, Bytes::new(), PING_TIMEOUT, |answer| {
            let Ok(Pong { server, statsz }) = serde_json::from_slice(answer) else { return false };
            if !servers.iter().any(|other| other.id == server.id) {
                servers.push(server);
            }
            // One that has just started, or is no good, knows fewer.
            known = known.max(statsz.active_servers);
            servers.len() >= known
        })
        .await?;
        if servers.is_empty() { Err(OwnNatsError::NoServer) } else { Ok(servers) }
    }

    /// Checks that a server takes accounts that are signed with this key. It would store others as well, and then
    /// refuse their users. Returns all keys with which the key's operator signs accounts.
    ///
    /// # Errors
    /// [`OwnNatsError::Silent`], [`OwnNatsError::Denied`], [`OwnNatsError::Untrusted`] or
    /// [`OwnNatsError::NotASigningKey`].
    pub(super) async fn check_trust(&self, server: &Server, key: &PublicKey) -> Result<Vec<PublicKey>, OwnNatsError> {
        let subject = format!("$SYS.REQ.SERVER.{}.VARZ", server.id);
        let (mut operators, mut is_silent) = (Vec::new(), true);
        self.gather(&subject, Bytes::new(), ANSWERS_TIMEOUT, |answer| {
            is_silent = answer.is_empty();
            let parsed = serde_json::from_slice::<Answer<Variables>>(answer).ok();
            operators.extend(parsed.and_then(|answer| answer.data).map(|data| data.trusted_operators_jwt));
            true
        })
        .await?;
        if is_silent {
            let (servers, about) = (server.name.clone(), "the operator that they trust".to_owned());
            return Err(OwnNatsError::Silent { servers, about });
        }
        let decoded = operators.iter().flatten().filter_map(|token| jwt::decode::<Operator>(token).ok());
        trusted_keys(decoded, &server.name, key)
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
            if !missing.iter().any(|other| other.id == server.id) {
                return false;
            }
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
        let silent = || OwnNatsError::Silent { servers: names.join(", "), about: format!("the account {account}") };
        if names.is_empty() { Ok(()) } else { Err(silent()) }
    }

    /// Whether the server that this connection is to knows of accounts.
    pub(super) async fn has_full_resolver(&self) -> Result<bool, OwnNatsError> {
        let request = Message::new("$SYS.REQ.CLAIMS.LIST", Bytes::new());
        match self.0.request(request, ANSWERS_TIMEOUT).await {
            Ok(answer) => Ok(serde_json::from_slice::<Answer<IgnoredAny>>(&answer.payload).is_ok()),
            Err(RequestError::NoResponders) => Ok(false),
            Err(RequestError::Failed(error)) => Err(error.into()),
            Err(RequestError::Denied { subject, .. }) => Err(OwnNatsError::Denied { subject: subject.to_string() }),
            Err(RequestError::TimedOut | RequestError::Unauthenticated(_)) => Err(OwnNatsError::NoServer),
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
        let message = Message::new(subject.to_owned(), payload);
        self.0.publish(Message { reply: Some(inbox), ..message.clone() }).await?;
        let mut is_answered = false;
        while let Ok(Some(answer)) = timeout_at(end, answers.next()).await {
            is_answered = true;
            if is_last(&answer.payload) {
                break;
            }
        }
        if is_answered {
            return Ok(());
        }
        // Only a request learns that it is not permitted.
        match self.0.request(message, DENIAL_TIMEOUT).await {
            Err(RequestError::Denied { subject, .. }) => Err(OwnNatsError::Denied { subject: subject.to_string() }),
            Ok(_) | Err(_) => Ok(()),
        }
    }
}

/// All keys with which the operator signs accounts that has this one.
fn trusted_keys(
    operators: impl Iterator<Item = Claims<Operator>>,
    server: &str,
    key: &PublicKey,
) -> Result<Vec<PublicKey>, OwnNatsError> {
    let (mut trusted, mut is_strict) = (Vec::new(), false);
    for Claims { subject, body, .. } in operators {
        let is_own = subject == *key;
        is_strict |= is_own && body.strict_signing_key_usage;
        let mut keys = body.signing_keys;
        if !body.strict_signing_key_usage {
            keys.push(subject);
        }
        if keys.contains(key) {
            trusted.extend(keys);
        }
    }
    let (server, key) = (server.to_owned(), key.clone());
    match (trusted.is_empty(), is_strict) {
        (false, _) => Ok(trusted),
        (true, true) => Err(OwnNatsError::NotASigningKey { server, key }),
        (true, false) => Err(OwnNatsError::Untrusted { server, key }),
    }
}

#[cfg(test)]
mod tests {
    use otherix_identity::{KeyKind, KeyPair};
    use serde_json::json;

    use super::*;

    #[test]
    fn texts_of_answers_are_one_short_line() {
        let id = "NDUWXBGUJ2Z3EZQVZYHLGYPHKLXRR4KXFYXDY2YMIVVQZWCVEJTGKBBK";
        let server = |name: &str| serde_json::from_value::<Server>(json!({ "name": name, "id": id, "ver": "2.12.1" }));
        assert_eq!(server("n1").unwrap().name, "n1");
        assert_eq!(server("a\n\u{1b}[2J").unwrap().name, r"a\n\u{1b}[2J");
        assert_eq!(server(&"\n".repeat(300)).unwrap().name, r"\n".repeat(128));
        assert_eq!(server(&"ä".repeat(300)).unwrap().name, "ä".repeat(128));
        assert!(serde_json::from_value::<Server>(json!({ "name": "n", "id": "*", "ver": "2.12.1" })).is_err());
    }

    #[test]
    fn the_operators_keys_are_those_that_sign() {
        let [operator, signing, other] =
            [(); 3].map(|()| KeyPair::generate(KeyKind::Operator).unwrap().public_key().clone());
        let keys = |strict_signing_key_usage, key| {
            let signing_keys = vec![signing.clone()];
            let body = Operator { signing_keys, system_account: None, strict_signing_key_usage };
            trusted_keys([Claims::new(&operator, "o", 1, body)].into_iter(), "n1", key)
        };
        assert_eq!(keys(false, &signing).unwrap(), [signing.clone(), operator.clone()]);
        assert_eq!(keys(false, &operator).unwrap(), [signing.clone(), operator.clone()]);
        assert_eq!(keys(true, &signing).unwrap(), vec![signing.clone()]);
        assert!(matches!(keys(true, &operator), Err(OwnNatsError::NotASigningKey { .. })));
        assert!(matches!(keys(false, &other), Err(OwnNatsError::Untrusted { .. })));
    }
}
