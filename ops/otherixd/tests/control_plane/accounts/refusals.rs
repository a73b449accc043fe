//! What the NATS server refuses is counted and logged: who, what, which permission, and from where.

use std::fs;

use otherix_schemas::user::{RevokeUser, UserById, UserRole};
use otherix_testkit::wait::wait_for;
use serde_json::json;

use super::users::{ask, register};
use crate::daemon::{DEADLINE, OtherixdProcess};
use crate::raw_client::RawClient;

/// The log lines about refusals, as soon as one has all these texts.
async fn refusal(daemon: &OtherixdProcess, texts: &[&str]) -> String {
    wait_for(DEADLINE, "a refusal in the log", async || {
        let log = daemon.log();
        let is_wanted = |line: &&str| line.contains("requests were refused") && texts.iter().all(|t| line.contains(t));
        log.lines().find(is_wanted).map(ToOwned::to_owned).ok_or(log)
    })
    .await
}

#[tokio::test]
async fn what_nats_refuses_is_logged_with_user_permission_and_address() {
    let daemon = OtherixdProcess::start().await;
    let (url, admin) = (daemon.url().await, daemon.connect("admin").await);
    let (ann, creds) = register(&admin, "ann", UserRole::Viewer).await;
    let (id, key) = (format!("id=\"{}\"", ann.id), creds.user().to_string());
    let mut client = RawClient::connect(&url, &creds);
    for _ in 0..50 {
        client.request(&format!("otherix.req.v1.{key}.network.create"), &client.inbox("a"), "{}");
    }
    client.subscribe("live.otherix.adm.v1.>", 7);
    client.publish(b"otherix.evt.v1.network.deleted.x", None, b"NATS/1.0\r\n\r\n", b"{}");
    assert_eq!(client.settle().errors.len(), 52);
    let who = ["user=\"ann\"", id.as_str(), key.as_str(), "role=\"viewer\"", "host=\"127.0.0.1\"", "by=\"NATS\""];
    for what in [
        &["permission=\"network:manage\"", "publish on `otherix.req.v1."][..],
        &["permission=\"audit:read\"", "subscribe to `live.otherix.adm.v1.>`"],
        &["publish on `otherix.evt.v1.network.deleted.x`"],
    ] {
        refusal(&daemon, &[&who, what].concat()).await;
    }
    let lines = daemon.log().lines().filter(|line| line.contains("requests were refused")).count();
    assert_eq!(lines, 3, "one line for each user and permission in an interval: {}", daemon.log());

    // A client whose name is a format of the server's log, which puts another user's key into it.
    let (bob, _) = register(&admin, "bob", UserRole::Viewer).await;
    let name = format!("x%[1]s - %[1]sA/CLIENTS/jwt:{}%[1]s - Publish Violation - Subject %[1]q", bob.key);
    let signed = creds.clone();
    let mut evil = RawClient::authenticate(&url, |nonce| {
        json!({ "jwt": signed.jwt(), "sig": signed.sign_nonce(nonce), "name": name, "lang": "x", "version": "1" })
    })
    .unwrap();
    evil.request("\"", "x", "{}");
    evil.request("otherix.req.v1.other.vm.create", "x", "{}");
    assert!(!evil.settle().errors.is_empty());
    let nats_log = daemon.state().join("nats/nats.log");
    wait_for(DEADLINE, "NATS's log", async || fs::read_to_string(&nats_log).unwrap().contains(bob.key.as_str())).await;
    // Those after it are read after it.
    let mut client = RawClient::connect(&url, &creds);
    client.subscribe("live.otherix.evt.>", 7);
    client.settle();
    refusal(&daemon, &["permission=\"event:read\"", "user=\"ann\""]).await;
    assert!(!daemon.log().contains("user=\"bob\""), "{}", daemon.log());

    // Lines of 0.9 and of 7 MB. The beginning of the second, with the address, is skipped.
    for (user, repeated, host) in [("eve", 1, true), ("fay", 8, false)] {
        let (_, creds) = register(&admin, user, UserRole::Viewer).await;
        let name = format!("x{}", "%900000[1]s".repeat(repeated));
        let mut evil = RawClient::authenticate(
            &url,
            |nonce| json!({ "jwt": creds.jwt(), "sig": creds.sign_nonce(nonce), "name": name, "lang": "x" }),
        )
        .unwrap();
        evil.request("otherix.req.v1.other.vm.create", "x", "{}");
        assert_eq!(evil.settle().errors.len(), 1);
        let user = format!("user=\"{user}\"");
        let line = refusal(&daemon, &[&user, "publish on an unknown subject"]).await;
        assert!(line.contains("host=\"127.0.0.1\"") == host && line.len() < 1_000, "{} bytes", line.len());
    }

    // Credentials that are refused, without the proof that they are the client's.
    ask::<RevokeUser>(&admin, &UserById { id: ann.id }).await;
    let token = creds.jwt().to_owned();
    for proof in [json!({ "jwt": token, "sig": "x" }), json!({ "user": "bob", "pass": "geheim" })] {
        assert!(RawClient::authenticate(&url, |_| proof.clone()).is_err());
    }
    refusal(&daemon, &["user=\"ann\"", &id, "does not authenticate", "is revoked", "host=\"127.0.0.1\""]).await;
    refusal(&daemon, &["does not authenticate", "no credential of a user"]).await;
    let log = daemon.log();
    for secret in [token.as_str(), "geheim", "eyJ", creds.key().seed().as_str()] {
        assert!(!log.contains(secret), "{secret}");
    }
}
