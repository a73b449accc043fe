//! Properties of removed nodes: each of their requests is refused with the reason, also after a restart of the control
//! plane; they have no presence; a repeated removal returns the first answer.

use std::process::Command;
use std::time::Duration;

use otherix_schemas::error::{ErrorBody, ErrorCode, REMOVED_NODE};
use otherix_schemas::id::NodeId;
use otherix_schemas::node::{
    DeleteNode, GetNode, Heartbeat, JoinAnswer, JoinNode, JoinRequest, NodeById, NodeReport, NodeView, RemovedNodeView,
    ReportNode, ReportReceipt,
};
use otherix_schemas::request::{Answer, Request};
use otherix_schemas::subject;
use otherix_testkit::wait::wait_for;
use otherix_transport::Nats;
use otherix_transport::request::{CallError, CallOptions};
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

async fn send_heartbeat(node: &Nats, number: u128) -> Result<(), ErrorBody> {
    let beat = Heartbeat::default();
    let options = CallOptions { timeout: Duration::from_secs(5), idempotency_key: None };
    match node.exchange(subject::heartbeat(id(number)), &beat, options).await {
        Ok(_) => Ok(()),
        Err(CallError::Refused(refusal)) => Err(refusal),
        Err(other) => panic!("{other}"),
    }
}

/// The types of the node events, with the number of each node.
fn node_events(daemon: &OtherixdProcess) -> Vec<String> {
    let sql = "SELECT replace(type, 'dev.otherix.node.', ''), substr(body ->> '$.data.node_id', -1) FROM events
        WHERE type LIKE 'dev.otherix.node.%' ORDER BY position";
    let journal = daemon.state().join("journal.db");
    let output = Command::new("sqlite3").args(["-readonly", journal.to_str().unwrap(), sql]).output().unwrap();
    String::from_utf8(output.stdout).unwrap().lines().map(str::to_owned).collect()
}

/// Asserts that every request of node 1 is refused.
async fn assert_refused(node: &Nats) {
    let report = NodeReport { node_id: id(1), incarnation: 1, sequence: 1, results: Vec::new() };
    let refusals = [
        join(node, 1, "node-1").await.unwrap_err(),
        join(node, 1, "node-9").await.unwrap_err(),
        call::<ReportReceipt>(node, Request::of::<ReportNode>(), &report, None).await.unwrap_err(),
        send_heartbeat(node, 1).await.unwrap_err(),
    ];
    for refusal in refusals {
        let ErrorBody { error } = refusal;
        assert_eq!((error.code, error.details.get(REMOVED_NODE)), (ErrorCode::Conflict, Some(&json!(id(1)))));
        assert!(
            error.message.contains("`node-1`") && error.message.contains("empty state folder"),
            "{}",
            error.message
        );
    }
}

#[tokio::test]
async fn removed_node_is_refused_and_has_no_presence() {
    let mut daemon = OtherixdProcess::start_with(&["--unreachable-after-ms", "1500"]).await;
    let (admin, node) = (daemon.connect("admin").await, daemon.connect("node").await);
    join(&node, 1, "node-1").await.unwrap();
    join(&node, 2, "node-2").await.unwrap();
    send_heartbeat(&node, 1).await.unwrap();
    let remove = async |admin: &Nats| {
        let body = NodeById { id: id(1) };
        call::<RemovedNodeView>(admin, Request::of::<DeleteNode>(), &body, Some("remove-1")).await.unwrap()
    };
    let answer: Answer<RemovedNodeView> = remove(&admin).await;
    assert_eq!((answer.data.id, answer.data.name.as_str()), (id(1), "node-1"));
    assert_refused(&node).await;
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
    let (admin, node) = (daemon.connect("admin").await, daemon.connect("node").await);
    assert_refused(&node).await;
    assert_eq!(remove(&admin).await, answer, "the same key returns the first answer");
    join(&node, 3, "NODE-1").await.unwrap();
    let expected = ["joined.v1|1", "joined.v1|2", "removed.v1|1", "unreachable.v1|2", "joined.v1|3"];
    assert_eq!(node_events(&daemon), expected);
    daemon.assert_stream_is_copy().await;
}
