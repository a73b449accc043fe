//! Servers of a cluster of which one is no good.

use std::collections::BTreeMap;
use std::sync::Arc;

use otherix_identity::jwt::{self, Account, Claims, Operator};
use otherix_identity::{KeyKind, KeyPair};
use otherix_runtime::SystemRuntime;
use otherix_schemas::user::Callers;
use otherix_schemas::value::UserId;
use otherix_testkit::tempdir;
use otherix_transport::Connection;
use otherix_transport::memory::{Faults, MemoryNetwork};
use otherix_transport::transport::{Message, Subscription};
use serde_json::json;

use super::super::accounts::Revocations;
use super::*;

fn user() -> UserId {
    KeyPair::generate(KeyKind::User).unwrap().public_key().to_string().parse().unwrap()
}

/// Answers as two servers: `good` takes accounts, `bad` answers nothing but pings.
async fn answer(connection: Connection, mut requests: Subscription, operator: String, taken: &mut Vec<String>) {
    let mut accounts = BTreeMap::<String, String>::new();
    let server = |name: &str| json!({ "name": name, "id": name, "ver": "2.12.1" });
    while let Some(Message { subject, payload, reply, .. }) = requests.next().await {
        let answers: Vec<Vec<u8>> = match subject.strip_prefix("$SYS.REQ.").unwrap() {
            "SERVER.PING" => [("good", 2), ("good", 1), ("bad", 1)]
                .map(|(name, known)| json!({ "server": server(name), "statsz": { "active_servers": known } }))
                .map(|pong| pong.to_string().into())
                .into(),
            "CLAIMS.LIST" => vec![json!({ "server": server("good") }).to_string().into()],
            "SERVER.good.VARZ" => {
                let data = json!({ "trusted_operators_jwt": [operator] });
                vec![json!({ "server": server("good"), "data": data }).to_string().into()]
            }
            "SERVER.bad.VARZ" => vec![],
            "CLAIMS.UPDATE" => {
                let token = String::from_utf8(payload.to_vec()).unwrap();
                let Claims { subject, name, .. } = jwt::decode::<Account>(&token).unwrap();
                accounts.insert(subject.to_string(), token);
                taken.push(name);
                vec![json!({ "server": server("good"), "data": { "code": 200 } }).to_string().into()]
            }
            lookup => {
                let account = lookup.strip_prefix("ACCOUNT.").unwrap().strip_suffix(".CLAIMS.LOOKUP").unwrap();
                vec![accounts.get(account).cloned().unwrap_or_default().into()]
            }
        };
        for answer in answers {
            connection.publish(Message::new(reply.clone().unwrap(), answer)).await.unwrap();
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_server_that_is_no_good_keeps_no_revocation_from_the_others() {
    let folder = tempdir().unwrap();
    let identity = Arc::new(Identity::load_or_create_accounts(folder.path()).unwrap());
    let operator = Arc::new(KeyPair::generate(KeyKind::Operator).unwrap());
    let body = Operator { signing_keys: vec![], system_account: None, strict_signing_key_usage: false };
    let token = jwt::encode(Claims::new(operator.public_key(), "o", 1, body), &operator).unwrap();
    let network = MemoryNetwork::new(SystemRuntime::shared(), Faults::NONE);
    let (servers, system) = (network.control(user()), network.control(user()));
    let requests = servers.subscribe("$SYS.REQ.>").await.unwrap();
    let pusher = AccountPusher { identity, operator, system: SystemClient::new(system.connection()) };
    let (revoked, callers) = (Revocations::default(), Callers::default());
    let wanted = Wanted { revoked: &revoked, callers: &callers, is_dry_run: false };
    let mut taken = Vec::new();
    let result = tokio::select! {
        result = push_all(&pusher, &wanted, |_, _| {}) => result,
        () = answer(servers.connection(), requests, token, &mut taken) => panic!("the servers ended"),
    };
    let error = result.unwrap_err();
    assert!(matches!(&error, NatsError::Own(OwnNatsError::Silent { servers, .. }) if servers == "bad"), "{error}");
    assert_eq!(taken, ["OTHERIX-NODES", "OTHERIX-STATE", "OTHERIX-CLIENTS", "OTHERIX-CONTROL", "OTHERIX-EVENTS"]);
}
