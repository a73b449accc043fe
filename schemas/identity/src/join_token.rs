//! Join tokens: one line of text with which a machine joins a cluster. `otherix-join-1.` and base64url of JSON: the
//! server and its CA, a credential that may only join, and the key by which the node knows the cluster's decisions.

use std::fmt;
use std::str::FromStr;

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use otherix_schemas::decision_chain::DecisionKey;
use otherix_schemas::value::NodeName;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::creds::{Creds, CredsFormatError};
use crate::key::{KeyError, KeyKind, KeyPair};

/// What every join token begins with; the version of its format and a dot follow.
const PREFIX: &str = "otherix-join-";

/// The version of the format.
const VERSION: u32 = 1;

/// Longest token, in bytes.
pub const JOIN_TOKEN_MAX: usize = 64 << 10;

/// A join token. A secret: whoever has it can join a node until it is used up, expires or is revoked.
#[derive(Clone)]
pub struct JoinToken {
    /// The URL of NATS.
    pub server: String,
    /// The certificate of the CA that has issued the server's, in PEM; `None` if the server has no TLS, or a
    /// certificate that every machine trusts.
    pub ca: Option<String>,
    /// The credential with which a node is enrolled.
    pub creds: Creds,
    /// The key by which the node knows the decisions of its cluster.
    pub decision_key: DecisionKey,
    /// The only name that may join with it; `None`: any that no node has.
    pub name: Option<NodeName>,
}

/// Why a text is not a join token.
#[derive(Debug, thiserror::Error)]
pub enum JoinTokenError {
    #[error("it is longer than {} KiB", JOIN_TOKEN_MAX >> 10)]
    Length,
    #[error("a join token begins with `{PREFIX}{VERSION}.`")]
    Prefix,
    #[error("it was made by a newer version of otherix (format {0}): upgrade otherix-agent on this machine")]
    Version(u32),
    #[error("it is damaged or incomplete ({0}): copy all of it")]
    Damaged(String),
    #[error("its credential cannot be used")]
    Credential(#[from] CredsFormatError),
    #[error("its seed cannot be used")]
    Seed(#[from] KeyError),
}

/// The JSON in a token.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Content {
    server: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    ca: Option<String>,
    jwt: String,
    seed: Zeroizing<String>,
    decision_key: DecisionKey,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    name: Option<NodeName>,
}

impl JoinToken {
    /// The token's text: one line without spaces. A secret.
    ///
    /// # Errors
    /// [`JoinTokenError::Length`], if the CA is too long.
    pub fn render(&self) -> Result<Zeroizing<String>, JoinTokenError> {
        let Self { server, ca, creds, decision_key, name } = self;
        let content = Content {
            server: server.clone(),
            ca: ca.clone(),
            jwt: creds.jwt().to_owned(),
            seed: creds.key().seed(),
            decision_key: *decision_key,
            name: name.clone(),
        };
        let json = serde_json::to_vec(&content).map_err(|error| JoinTokenError::Damaged(error.to_string()));
        let json = Zeroizing::new(json?);
        // Enough from the beginning: a buffer that grows leaves its content behind.
        let mut text = Zeroizing::new(String::with_capacity(PREFIX.len() + 12 + json.len().div_ceil(3) * 4));
        text.push_str(&format!("{PREFIX}{VERSION}."));
        BASE64_URL_SAFE_NO_PAD.encode_string(&*json, &mut text);
        if text.len() > JOIN_TOKEN_MAX { Err(JoinTokenError::Length) } else { Ok(text) }
    }
}

/// Ignores white space before and after the token.
impl FromStr for JoinToken {
    type Err = JoinTokenError;

    fn from_str(text: &str) -> Result<Self, JoinTokenError> {
        let text = text.trim_ascii();
        if text.len() > JOIN_TOKEN_MAX {
            return Err(JoinTokenError::Length);
        }
        let (version, content) =
            text.strip_prefix(PREFIX).and_then(|rest| rest.split_once('.')).ok_or(JoinTokenError::Prefix)?;
        match version.parse() {
            Ok(VERSION) if version.len() == 1 => {}
            Ok(newer) if newer > VERSION => return Err(JoinTokenError::Version(newer)),
            Ok(_) | Err(_) => return Err(JoinTokenError::Prefix),
        }
        let damaged = |error: &dyn fmt::Display| JoinTokenError::Damaged(error.to_string().escape_debug().to_string());
        let json = BASE64_URL_SAFE_NO_PAD.decode(content).map_err(|error| damaged(&error))?;
        let json = Zeroizing::new(json);
        let Content { server, ca, jwt, seed, decision_key, name } =
            serde_json::from_slice(&json).map_err(|error| damaged(&error))?;
        let key = KeyPair::from_seed(&seed)?;
        key.public_key().clone().of_kind(KeyKind::User)?;
        Ok(Self { server, ca, creds: Creds::new(jwt, key)?, decision_key, name })
    }
}

/// Omits the credential.
impl fmt::Debug for JoinToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { server, ca: _, creds, decision_key, name } = self;
        f.debug_struct("JoinToken")
            .field("server", server)
            .field("user", creds.user())
            .field("decision_key", decision_key)
            .field("name", name)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use otherix_schemas::decision_chain::DecisionSigner;
    use serde_json::{Value, json};

    use super::*;
    use crate::jwt::{self, Claims, User};

    fn token(name: Option<&str>, ca: Option<String>) -> JoinToken {
        let account = KeyPair::generate(KeyKind::Account).unwrap();
        let key = KeyPair::generate(KeyKind::User).unwrap();
        let claims = Claims::new(key.public_key(), "join", 5, User::scoped(account.public_key()));
        JoinToken {
            server: "tls://control.example:4222".to_owned(),
            ca,
            creds: Creds::new(jwt::encode(claims, &account).unwrap(), key).unwrap(),
            decision_key: DecisionSigner::from_seed(&[1; 32]).public(),
            name: name.map(|name| name.parse().unwrap()),
        }
    }

    fn text_of(content: &Value) -> String {
        format!("{PREFIX}{VERSION}.{}", BASE64_URL_SAFE_NO_PAD.encode(content.to_string()))
    }

    fn content_of(token: &JoinToken) -> Value {
        let text = token.render().unwrap();
        let (_, content) = text.split_once('.').unwrap();
        serde_json::from_slice(&BASE64_URL_SAFE_NO_PAD.decode(content).unwrap()).unwrap()
    }

    #[test]
    fn what_is_rendered_is_parsed() {
        for (name, ca) in [(None, None), (Some("node-7"), Some("-----BEGIN CERTIFICATE-----\nAA==\n".to_owned()))] {
            let token = token(name, ca);
            let text = token.render().unwrap();
            assert!(text.starts_with("otherix-join-1.") && text.bytes().all(|byte| byte.is_ascii_graphic()));
            let parsed: JoinToken = format!(" {}\r\n", text.as_str()).parse().unwrap();
            assert_eq!((&parsed.server, &parsed.ca, &parsed.name), (&token.server, &token.ca, &token.name));
            assert_eq!((parsed.creds.jwt(), parsed.decision_key), (token.creds.jwt(), token.decision_key));
            assert_eq!(*parsed.creds.key().seed(), *token.creds.key().seed());
        }
    }

    #[test]
    fn the_fields_are_those_of_the_contract() {
        let token = token(Some("node-7"), Some("PEM".to_owned()));
        let expected = json!({
            "server": "tls://control.example:4222",
            "ca": "PEM",
            "jwt": token.creds.jwt(),
            "seed": token.creds.key().seed().as_str(),
            "decision_key": token.decision_key,
            "name": "node-7",
        });
        assert_eq!(content_of(&token), expected);
        assert_eq!(text_of(&expected).parse::<JoinToken>().unwrap().name, token.name);
    }

    #[test]
    fn other_texts_are_refused_with_what_to_do() {
        let token = token(None, None);
        let text = token.render().unwrap();
        let refused = |text: &str| text.parse::<JoinToken>().unwrap_err();
        for text in ["", "otherix-join-", "otherix-join-1", "otherix-join-01.AA", "otherix-join-0.AA", "-1.", "SUAB"] {
            assert!(matches!(refused(text), JoinTokenError::Prefix), "{text}");
        }
        let newer = refused(&text.replace("join-1.", "join-2."));
        assert!(newer.to_string().contains("newer version of otherix (format 2)"), "{newer}");
        // However much is missing. The shortest ones have no complete JSON at all.
        for length in "otherix-join-1.".len()..text.len() {
            let error = refused(&text[..length]);
            assert!(matches!(error, JoinTokenError::Damaged(_)), "{length}: {error:?}");
        }
        assert!(matches!(refused(&format!("{}!", text.as_str())), JoinTokenError::Damaged(_)));
        assert!(matches!(refused(&format!("{PREFIX}1.{}", "A".repeat(JOIN_TOKEN_MAX))), JoinTokenError::Length));
        let with_long_ca = JoinToken { ca: Some("x".repeat(JOIN_TOKEN_MAX)), ..token };
        assert!(matches!(with_long_ca.render(), Err(JoinTokenError::Length)));
    }

    #[test]
    fn unknown_missing_and_foreign_content_is_refused() {
        let (one, other) = (token(None, None), token(None, None));
        let with = |field: &str, value: Value| {
            let mut content = content_of(&one);
            content[field] = value;
            text_of(&content).parse::<JoinToken>().unwrap_err()
        };
        let unknown = with("group", json!("a"));
        assert!(unknown.to_string().contains("unknown field `group`"), "{unknown}");
        for field in ["server", "jwt", "seed", "decision_key"] {
            let mut content = content_of(&one);
            content.as_object_mut().unwrap().remove(field);
            let error = text_of(&content).parse::<JoinToken>().unwrap_err();
            assert!(error.to_string().contains(&format!("missing field `{field}`")), "{error}");
        }
        let foreign = with("seed", json!(other.creds.key().seed().as_str()));
        assert!(matches!(foreign, JoinTokenError::Credential(CredsFormatError::OtherKey)), "{foreign:?}");
        let account = KeyPair::generate(KeyKind::Account).unwrap().seed();
        assert!(matches!(with("seed", json!(account.as_str())), JoinTokenError::Seed(KeyError::OtherKind { .. })));
        assert!(matches!(with("jwt", json!("a.b.c")), JoinTokenError::Credential(CredsFormatError::Jwt(_))));
        assert!(matches!(with("name", json!("a/b")), JoinTokenError::Damaged(_)));
        let control = with("a\u{1b}[2J", json!(1)).to_string();
        assert!(!control.contains('\u{1b}'), "{control:?}");
    }

    #[test]
    fn the_seed_is_not_shown() {
        let token = token(Some("node-7"), None);
        let seed = token.creds.key().seed();
        assert!(!format!("{token:?}").contains(&seed[4..]));
        // Nor in errors about a token that has one.
        let mut content = content_of(&token);
        content["more"] = json!(true);
        let error = text_of(&content).parse::<JoinToken>().unwrap_err();
        assert!(!format!("{error:?} {error}").contains(&seed[4..]));
    }
}
