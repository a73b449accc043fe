//! More revoked keys than a JWT has space for: the server takes no account of more than 1 MiB, nor starts with one.

use std::sync::Arc;

use async_nats::connection::State;
use otherix_identity::{Creds, KeyKind, KeyPair};
use otherix_schemas::permission::Role;
use otherix_schemas::user::Callers;
use otherix_schemas::value::UserKey;
use otherix_testkit::wait::wait_for;
use otherix_transport::{Credentials, JetStream, NatsEndpoint};
use serde_json::{Value, json};
use tokio::sync::watch;

use super::super::accounts::AccountName;
use super::super::identity::{Identity, UserToSign};
use super::super::revoked_keys::{AccountRevocations, LISTED_MAX};
use super::super::scope::Scope;
use super::super::{NatsSupervisor, Revocations};
use super::revocation::Pushing;
use super::{DEADLINE, NatsFixture, settings};

/// Keys that nodes had.
const MANY: u32 = 50_000;

/// When the first of them was revoked, and one each second afterwards (Unix time).
const FIRST: u64 = 1_700_000_000;

fn revoked_key(number: u32) -> String {
    let mut bytes = [7; 32];
    bytes[..4].copy_from_slice(&number.to_be_bytes());
    UserKey::from_bytes(bytes).to_string()
}

/// A node's key with a credential that was issued at this Unix time.
fn node(identity: &Identity, issued_at: u64) -> (Creds, Arc<Credentials>) {
    let pair = KeyPair::generate(KeyKind::User).unwrap();
    let user = UserToSign {
        key: pair.public_key(),
        name: "node",
        scope: Scope::Role(Role::Node),
        issued_at,
        expires_at: None,
    };
    let creds = Creds::new(identity.sign_user(user).unwrap(), pair).unwrap();
    (creds.clone(), Arc::new(Credentials::Key(Arc::new(creds))))
}

/// The registry with the revoked keys and a node with a valid one.
fn callers(valid: &Creds, revoked: &[&Creds]) -> Callers {
    let id = "018f0000-0000-7000-8000-000000000001";
    let gone = (0..MANY).map(|number| (revoked_key(number), json!(FIRST + u64::from(number))));
    let known = revoked.iter().map(|creds| (creds.user().to_string(), json!(creds.claims().issued_at)));
    let keys: serde_json::Map<String, Value> = gone.chain(known).collect();
    let present = json!({ "key": valid.user().as_str(), "issued_at": valid.claims().issued_at });
    let node = json!({
        "name": "old", "present": present, "offered": null, "offered_at": null, "token_id": id, "is_unconfirmed": false,
        "version": 1,
    });
    let enrollments = json!({ "tokens": {}, "nodes": { id: node }, "revoked": keys });
    serde_json::from_value(json!({ "users": {}, "revoked": {}, "enrollments": enrollments })).unwrap()
}

/// Revokes many keys, and returns how many are listed. Checks, also after a restart of the server, that of the nodes
/// with a key that was issued with the first of them, and with the last, the latter is refused, and `valid` is not.
async fn check(valid_since: u64, is_first_refused: bool) -> usize {
    let mut fixture = NatsFixture::start().await;
    let access = fixture.supervisor.access();
    let identity = &access.identity;
    let last = FIRST + u64::from(MANY);
    let [(valid, with_valid), (first, with_first), (last, with_last)] =
        [valid_since, FIRST, last].map(|issued_at| node(identity, issued_at));
    let Pushing { pusher, callers: registry, revoked, _relay } = Pushing::on(&fixture).await;
    let [valid_node, first_node, last_node] =
        [&with_valid, &with_first, &with_last].map(|credentials| fixture.supervisor.endpoint(credentials));
    let connect = async |endpoint: NatsEndpoint| JetStream::once(&endpoint, "test", DEADLINE).await;
    let connected = connect(last_node.clone()).await.unwrap();
    let pushed = async {
        registry.send_replace(callers(&valid, &[&first, &last]));
        wait_for(DEADLINE, "the end of the connection", async || {
            connected.client().connection_state() != State::Connected
        })
        .await;
        connect(last_node.clone()).await.unwrap_err();
        assert_eq!(connect(first_node.clone()).await.is_err(), is_first_refused);
        connect(valid_node.clone()).await.unwrap();
    };
    tokio::select! {
        () = pusher.run() => panic!("the pusher ended"),
        never = fixture.supervisor.run() => match never {},
        () = pushed => {}
    }

    let folder = fixture.stop().await;
    let mut settings = settings(folder.path());
    settings.revoked = watch::Sender::new(revoked.borrow().clone()).subscribe();
    let restarted = NatsSupervisor::start(settings).await.unwrap();
    connect(restarted.endpoint(&with_last)).await.unwrap_err();
    assert_eq!(connect(restarted.endpoint(&with_first)).await.is_err(), is_first_refused);
    connect(restarted.endpoint(&with_valid)).await.unwrap();
    restarted.stop().await;
    revoked.borrow().nodes.keys.len()
}

/// Which accounts are nearest to the limit changes with their permissions.
#[test]
fn accounts_with_as_many_keys_as_are_listed_are_accepted_by_nats() {
    let folder = otherix_testkit::tempdir().unwrap();
    let identity = Identity::load_or_create(folder.path(), FIRST).unwrap();
    let keys = (0..MANY).map(|number| (revoked_key(number), u64::from(u32::MAX)));
    let full = AccountRevocations::new(keys, None, None);
    let revoked = Revocations { clients: full.clone(), nodes: full };
    for name in [AccountName::Clients, AccountName::Nodes] {
        let length = identity.account_jwt(name, &revoked, FIRST).unwrap().len();
        assert!((900_000..1 << 20).contains(&length), "{name:?}: {length} bytes");
    }
}

#[tokio::test]
async fn keys_that_were_revoked_before_the_oldest_valid_one_are_revoked_as_a_whole() {
    assert_eq!(check(FIRST + u64::from(MANY) + 1, true).await, 1);
}

#[tokio::test]
async fn the_latest_revoked_keys_are_refused_while_an_older_one_is_valid() {
    assert_eq!(check(FIRST - 1, false).await, LISTED_MAX);
}
