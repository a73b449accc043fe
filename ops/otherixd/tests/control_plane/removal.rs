//! Properties of removed nodes: the server refuses their keys within a second, also after a restart; no token brings
//! their ids back; they have no presence; a repeated removal returns the first answer.

use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use otherix_identity::Creds;
use otherix_schemas::enrollment::{EnrollNode, NodeKeyView, NodeToEnroll};
use otherix_schemas::error::{Causes, ErrorBody, ErrorCode, REMOVED_NODE};
use otherix_schemas::id::NodeId;
use otherix_schemas::node::{
    DeleteNode, GetNode, Heartbeat, JoinAnswer, JoinNode, JoinRequest, NodeById, NodeView, RemovedNodeView,
};
use otherix_schemas::request::{Answer, Request};
use otherix_schemas::subject;
use otherix_schemas::value::UserKey;
use otherix_testkit::wait::wait_for;
use otherix_transport::request::CallOptions;
use otherix_transport::{Credentials, Nats, NatsEndpoint};
use serde_json::json;
use uuid::Uuid;

use super::daemon::{DEADLINE, OtherixdProcess, call};

fn id(number: u128) -> NodeId {
    NodeId::new(Uuid::from_u128(number))
}

async fn join(node: &Nats, number: u128, name: &str) -> Result<(), ErrorBody> {
    let body = JoinRequest { node_id: id(number), name: name.parse().unwrap(), mesh: None, arch: None };
    call::<JoinAnswer>(node, Request::of::<JoinNode>(), &body, None).await.map(drop)
}

async fn send_heartbeat(node: &Nats) {
    let options = CallOptions { timeout: Duration::from_secs(5), idempotency_key: None };
    node.exchange(subject::heartbeat(&node.user()), &Heartbeat::default(), options).await.unwrap();
}

/// The types of the node events, with the number of each node.
fn node_events(daemon: &OtherixdProcess) -> Vec<String> {
    let sql = "SELECT replace(type, 'dev.otherix.node.', ''), substr(body ->> '$.data.node_id', -1) FROM events
        WHERE type LIKE 'dev.otherix.node.%' ORDER BY position";
    let journal = daemon.state().join("journal.db");
    let output = Command::new("sqlite3").args(["-readonly", journal.to_str().unwrap(), sql]).output().unwrap();
    String::from_utf8(output.stdout).unwrap().lines().map(str::to_owned).collect()
}

/// Asserts that the server refuses the credentials of node 1.
async fn assert_refused(daemon: &OtherixdProcess, creds: &Creds) {
    let endpoint = NatsEndpoint::new(daemon.url().await, Credentials::Key(Arc::new(creds.clone())));
    let refused = Nats::once(&endpoint, "test", DEADLINE).await.unwrap_err();
    assert!(format!("{:#}", Causes(&refused)).contains("revoked"), "{}", Causes(&refused));
}

/// Asserts that a machine with the id of node 1 cannot join again, whatever its token.
async fn assert_gone(daemon: &OtherixdProcess, machine: &Nats) {
    let key = UserKey::from_bytes([77; 32]);
    for name in ["node-1", "node-9"] {
        let body = NodeToEnroll { name: name.parse().unwrap(), key: key.clone(), node_id: Some(id(1)) };
        let refused = call::<NodeKeyView>(machine, Request::of::<EnrollNode>(), &body, None).await.unwrap_err().error;
        assert_eq!((refused.code, refused.details.get(REMOVED_NODE)), (ErrorCode::Conflict, Some(&json!(id(1)))));
        let text = &refused.message;
        assert!(text.contains("`node-1`") && text.contains("empty state folder"), "{text} {}", daemon.pid());
    }
}

#[tokio::test]
async fn removed_node_is_refused_and_has_no_presence() {
    let mut daemon = OtherixdProcess::start_with(&["--unreachable-after-ms", "1500"]).await;
    let admin = daemon.connect("admin").await;
    let creds = daemon.enroll(id(1), "node-1").await;
    let (first, second) = (daemon.connect_as(creds.clone()).await, daemon.node(id(2), "node-2").await);
    join(&first, 1, "node-1").await.unwrap();
    join(&second, 2, "node-2").await.unwrap();
    send_heartbeat(&first).await;
    let machine = daemon.connect_as(daemon.join_token(None, 5).await).await;
    let remove = async |admin: &Nats| {
        let body = NodeById { id: id(1) };
        call::<RemovedNodeView>(admin, Request::of::<DeleteNode>(), &body, Some("remove-1")).await.unwrap()
    };
    let answer: Answer<RemovedNodeView> = remove(&admin).await;
    assert_eq!((answer.data.id, answer.data.name.as_str()), (id(1), "node-1"));
    wait_for(Duration::from_secs(1), "its connection to end", async || !first.is_connected()).await;
    assert_refused(&daemon, &creds).await;
    assert_gone(&daemon, &machine).await;
    let shown =
        call::<NodeView>(&admin, Request::of::<GetNode>(), &NodeById { id: id(1) }, None).await.unwrap_err().error;
    assert_eq!((shown.code, shown.message), (ErrorCode::NotFound, format!("there is no node `{}`", id(1))));
    // The other node becomes unreachable.
    wait_for(DEADLINE, "node-2 to become unreachable", async || match node_events(&daemon) {
        seen if seen.last().is_some_and(|last| last == "unreachable.v1|2") => Ok(()),
        seen => Err(seen),
    })
    .await;

    daemon.kill();
    daemon.start_again().await;
    let admin = daemon.connect("admin").await;
    assert_refused(&daemon, &creds).await;
    assert_gone(&daemon, &machine).await;
    assert_eq!(remove(&admin).await, answer, "the same key returns the first answer");
    let third = daemon.node(id(3), "NODE-1").await;
    join(&third, 3, "NODE-1").await.unwrap();
    let expected = ["joined.v1|1", "joined.v1|2", "removed.v1|1", "unreachable.v1|2", "joined.v1|3"];
    assert_eq!(node_events(&daemon), expected);
    daemon.assert_stream_is_copy().await;
}
