//! Credentials that the control plane has not made, or that were altered.

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use otherix_identity::jwt::{self, Claims, Permissions, SubjectPermissions, User, UserLimits, UserPermissions, encode};
use otherix_identity::{Creds, KeyKind, KeyPair};
use serde_json::{Value, json};

use super::user;
use crate::daemon::OtherixdProcess;
use crate::raw_client::RawClient;

/// Connects with a JWT and the signature of a key.
fn connect(url: &str, token: &str, key: &KeyPair) -> Result<RawClient, String> {
    let sign = |nonce: &str| BASE64_URL_SAFE_NO_PAD.encode(key.sign(nonce.as_bytes()));
    RawClient::authenticate(url, |nonce| json!({ "jwt": token, "sig": sign(nonce) }))
}

/// Header and claims of a JWT.
fn parts(token: &str) -> [Value; 2] {
    let mut parts = token.split('.').map(|part| BASE64_URL_SAFE_NO_PAD.decode(part).unwrap());
    let mut next = || serde_json::from_slice(&parts.next().unwrap()).unwrap();
    [next(), next()]
}

/// A JWT with this header and these claims.
fn token(header: &Value, claims: &Value, key: &KeyPair) -> String {
    let [header, claims] = [header, claims].map(|part| BASE64_URL_SAFE_NO_PAD.encode(part.to_string()));
    let signature = BASE64_URL_SAFE_NO_PAD.encode(key.sign(format!("{header}.{claims}").as_bytes()));
    format!("{header}.{claims}.{signature}")
}

fn expect_refusal(attempt: &str, error: Option<String>) {
    let error = error.unwrap_or_default();
    assert!(error.contains("Authorization Violation") || error.contains("Authentication"), "{attempt}: {error:?}");
}

#[tokio::test]
async fn forged_credentials_are_refused() {
    let daemon = OtherixdProcess::start().await;
    let url = daemon.url().await;
    let viewer = user(&daemon, "viewer");
    let good = |creds: &Creds| connect(&url, creds.jwt(), creds.key()).map(drop);
    good(&viewer).unwrap();
    let [header, claims] = parts(viewer.jwt());
    let key = viewer.key();
    let (foreign, clients) = (KeyPair::generate(KeyKind::Account).unwrap(), daemon.identity_key("account-clients"));
    let of_role = |role: &str| daemon.identity_key(&format!("signing-{role}"));

    let mut attempts: Vec<(&str, String)> = Vec::new();
    let mut edited = claims.clone();
    edited["nats"]["tags"] = json!(["role:admin"]);
    edited["iss"] = json!(of_role("admin").public_key());
    let mut words: Vec<String> = viewer.jwt().split('.').map(ToOwned::to_owned).collect();
    words[1] = BASE64_URL_SAFE_NO_PAD.encode(edited.to_string());
    attempts.push(("an edited role", words.join(".")));
    attempts.push(("a role signed with another role's key", token(&header, &edited, &of_role("viewer"))));
    attempts.push(("no algorithm", token(&json!({ "typ": "JWT", "alg": "none" }), &claims, &of_role("viewer"))));
    let unsigned = viewer.jwt().rsplit_once('.').unwrap().0;
    attempts.push(("no algorithm and no signature", {
        let none = BASE64_URL_SAFE_NO_PAD.encode(json!({ "typ": "JWT", "alg": "none" }).to_string());
        format!("{none}.{}.", unsigned.split_once('.').unwrap().1)
    }));
    attempts.push(("no signature", format!("{unsigned}.")));
    attempts.push(("a foreign issuer in the issuer's name", token(&header, &claims, &foreign)));
    let claims_of = |body: User| Claims::new(key.public_key(), "mallory", 0, body);
    let scoped = || User::scoped(clients.public_key());
    attempts.push(("a foreign issuer", encode(claims_of(scoped()), &foreign).unwrap()));
    attempts
        .push(("a foreign account", encode(claims_of(User { issuer_account: None, ..scoped() }), &foreign).unwrap()));
    attempts
        .push(("a key of another account", encode(claims_of(scoped()), &daemon.identity_key("signing-node")).unwrap()));
    let mut own = claims.clone();
    own["iss"] = json!(key.public_key());
    attempts.push(("signed by itself", token(&header, &own, key)));
    let everything = UserPermissions {
        subjects: Permissions {
            publish: SubjectPermissions { allow: vec![">".to_owned()], deny: Vec::new() },
            subscribe: SubjectPermissions { allow: vec![">".to_owned()], deny: Vec::new() },
        },
        limits: UserLimits::NONE,
        allowed_connection_types: Vec::new(),
    };
    let with_rights = || User::with_permissions(clients.public_key(), everything.clone());
    attempts.push(("rights beside those of the role", encode(claims_of(with_rights()), &of_role("viewer")).unwrap()));
    attempts.push(("rights from the account's own key", encode(claims_of(with_rights()), &clients).unwrap()));
    attempts.push((
        "rights from the account's own key, unscoped",
        encode(claims_of(User { issuer_account: None, ..with_rights() }), &clients).unwrap(),
    ));
    let expired = Claims { expires_at: Some(1_000_000_000), ..claims_of(scoped()) };
    attempts.push(("expired", encode(expired, &of_role("viewer")).unwrap()));
    let early = Claims { not_before: Some(33_000_000_000), ..claims_of(scoped()) };
    attempts.push(("not valid yet", encode(early, &of_role("viewer")).unwrap()));
    attempts.push(("an account's JWT", {
        let account = jwt::Account::new(jwt::AccountLimits::CLIENTS_ONLY);
        encode(Claims::new(clients.public_key(), "CLIENTS", 0, account), &daemon.identity_key("operator-signing"))
            .unwrap()
    }));

    attempts.iter().for_each(|(attempt, token)| expect_refusal(attempt, connect(&url, token, key).err()));
    // Somebody else's JWT without its key.
    let thief = KeyPair::generate(KeyKind::User).unwrap();
    assert!(connect(&url, viewer.jwt(), &thief).is_err());
    // None of them was refused for another reason: the same claims, rightly signed, are accepted.
    connect(&url, &encode(claims_of(scoped()), &of_role("viewer")).unwrap(), key).unwrap();
    good(&viewer).unwrap();
}
