//! A failed authentication, as the server tells of it. The message has the client's whole JWT, which is never logged. A
//! JWT is no secret: that a client has it does not show that it is the user's.

use otherix_identity::jwt::{self, User};
use otherix_schemas::timestamp::Timestamp;
use otherix_schemas::user::Callers;
use otherix_schemas::value::UserId;
use otherix_transport::{Denials, NatsRefusal};
use serde::Deserialize;

use super::known;

/// Failed authentications.
static FAILURES: Denials = Denials::new();

/// A failed authentication.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct AuthFailure {
    /// The key of the user that the client claims to be.
    key: Option<UserId>,
    host: Option<String>,
    client: Option<String>,
    /// The server's words.
    reason: String,
}

#[derive(Deserialize)]
struct Advisory {
    client: Client,
    #[serde(default)]
    reason: String,
}

#[derive(Deserialize)]
struct Client {
    host: Option<String>,
    name: Option<String>,
    jwt: Option<String>,
}

impl AuthFailure {
    /// Returns `None` for another message.
    pub(super) fn parse(payload: &[u8]) -> Option<Self> {
        let Advisory { client: Client { host, name: client, jwt }, reason } = serde_json::from_slice(payload).ok()?;
        let claims = jwt.and_then(|token| jwt::decode::<User>(&token).ok());
        let key = claims.and_then(|claims| claims.subject.as_str().parse().ok());
        Some(Self { key, host, client, reason })
    }

    /// Whether the client claims to be a user, node or join token that is or was registered.
    pub(super) fn is_of_ours(&self, callers: &Callers) -> bool {
        self.key.as_ref().is_some_and(|key| callers.knows(key))
    }

    /// Counts it.
    pub(super) fn count(&self, callers: &Callers, now: Option<Timestamp>) {
        let Self { key, host, client, reason } = self;
        let why = match key.as_ref().map(|key| callers.find(key, now)) {
            None => "the client has no credential of a user".to_owned(),
            Some(Err(error)) => error.to_string(),
            Some(Ok(_)) => "the credential is an earlier one, or not the client's".to_owned(),
        };
        let error = format!("NATS does not authenticate the client ({reason}): {why}");
        let caller = key.as_ref().and_then(|key| known(callers, key));
        let key = key.as_ref().map_or("", UserId::as_str);
        let (caller, host, client) = (caller.as_ref(), host.as_deref(), client.as_deref());
        NatsRefusal { key, caller, permission: None, host, client, error: &error }.count(&FAILURES);
    }
}

#[cfg(test)]
mod tests {
    use otherix_identity::jwt::Claims;
    use otherix_identity::{KeyKind, KeyPair};
    use serde_json::json;

    use super::*;

    #[test]
    fn a_credential_names_the_user() {
        let (account, user) = (KeyPair::generate(KeyKind::Account).unwrap(), KeyPair::generate(KeyKind::User).unwrap());
        let claims = Claims::new(user.public_key(), "ann", 5, User::scoped(account.public_key()));
        let token = jwt::encode(claims, &account).unwrap();
        let client = |jwt: &str| json!({"host": "192.0.2.7", "name": "nats.py", "jwt": jwt});
        let parse = |client| AuthFailure::parse(json!({"client": client, "reason": "x"}).to_string().as_bytes());
        let failure = parse(client(&token)).unwrap();
        assert_eq!(failure.key.unwrap().as_str(), user.public_key().as_str());
        assert_eq!((failure.host.as_deref(), failure.client.as_deref()), (Some("192.0.2.7"), Some("nats.py")));
        for other in [client(""), client("eyJ.eyJ.x"), client(&token.to_uppercase()), json!({})] {
            assert_eq!(parse(other).unwrap().key, None);
        }
        assert_eq!(AuthFailure::parse(b"{}"), None);
    }
}
