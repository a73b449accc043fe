//! `otherix node join-token …`: what a token contains.

use std::fs;

use async_nats::ConnectOptions;
use otherix_identity::jwt::{self, Claims, User};
use otherix_identity::{JoinToken, KeyKind, KeyPair};
use otherix_schemas::decision_chain::DecisionSigner;
use otherix_testkit::tempdir;
use serde_json::json;

use crate::fake::{FakeControlPlane, FakeReply, ID};
use crate::tls::{TestCa, issue, server};

const TIME: &str = "2026-01-02T03:04:05.000006Z";

/// A CA file is often a bundle that somebody has put together, or the file that the CA's key is in as well.
#[test]
fn of_the_ca_file_a_token_has_the_certificates_only() {
    let (ca, folder) = (TestCa::new(), tempdir().expect("a folder"));
    let own = fs::read_to_string(ca.write(folder.path(), "own.pem")).expect("a certificate");
    let other = fs::read_to_string(TestCa::new().write(folder.path(), "other.pem")).expect("a certificate");
    let with_key = fs::read_to_string(issue(&TestCa::new(), folder.path(), "nats.example")).expect("a key");
    let (_, key) = with_key.split_once("-----BEGIN PRIVATE KEY-----").expect("a key");
    let file = folder.path().join("ca.pem");
    let bundle = format!("# of the data centre\n{own}\n-----BEGIN PRIVATE KEY-----{key}\nagain, and another:\n{other}");
    fs::write(&file, bundle).expect("written");

    let account = KeyPair::generate(KeyKind::Account).expect("a key");
    let options = ConnectOptions::new().add_root_certificates(folder.path().join("own.pem")).require_tls(true);
    let mut registered = String::new();
    let nats = server(&issue(&ca, folder.path(), "127.0.0.1"));
    let fake = FakeControlPlane::start_on(nats, options, move |received, _| {
        if let Some(key) = received.body["key"].as_str() {
            registered = key.to_owned();
            return FakeReply::Data(json!({
                "id": ID, "node_name": null, "key": key, "status": "active", "max_uses": 1, "uses": 0,
                "created_at": TIME, "expires_at": TIME, "revoked_at": null,
            }));
        }
        let body = User::scoped(account.public_key());
        let claims = Claims::new(&registered.parse().expect("a public key"), "token", 5, body);
        let jwt = jwt::encode(claims, &account).expect("signed");
        let decision_key = DecisionSigner::from_seed(&[1; 32]).public();
        FakeReply::Data(json!({ "id": ID, "jwt": jwt, "decision_key": decision_key }))
    });
    let run = fake.run(&format!("--ca {} node join-token create", file.display()));
    assert_eq!(run.code, 0, "{}", run.stderr);
    let token: JoinToken = run.stdout.parse().expect("a join token");
    let lines = |pem: &str| pem.lines().map(|line| line.trim().to_owned()).collect::<Vec<_>>();
    let expected = lines(&format!("{}\n{}", own.trim(), other.trim()));
    assert_eq!(lines(&token.ca.expect("the CA")), expected);
}
