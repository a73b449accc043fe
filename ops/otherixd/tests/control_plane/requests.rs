//! Properties of requests: create, get, list, delete and reports end to end; a rejection names the missing permission
//! immediately; a query includes every write acknowledged before it.

use std::time::Instant;

use otherix_schemas::error::{ErrorCode, LAST_REPORT};
use otherix_schemas::id::NodeId;
use otherix_schemas::network::{
    CreateNetwork, DeleteNetwork, FindNetwork, GetNetwork, ListNetworks, NetworkById, NetworkPageRequest, NetworkView,
};
use otherix_schemas::node::{
    DeleteNode, JoinAnswer, JoinNode, JoinRequest, NodeById, NodeReport, ReportNode, ReportNumber, ReportReceipt,
};
use otherix_schemas::outcome::{Outcome, OutcomeStatus, ResourceOutcome, ResourceRef};
use otherix_schemas::permission::Role;
use otherix_schemas::position::Position;
use otherix_schemas::request::{Answer, ByName, Request};
use otherix_transport::Nats;
use otherix_transport::request::CallError;

use super::daemon::{OtherixdProcess, call, create, draft, get, list_all, overlay, try_call};

const NODE: NodeId = NodeId::new(uuid::Uuid::from_u128(1));

async fn join(node: &Nats) -> JoinAnswer {
    let body = JoinRequest { node_id: NODE, name: "node-1".parse().unwrap(), mesh: None, arch: None };
    call(node, Request::of::<JoinNode>(), &body, None).await.unwrap().data
}

async fn report(node: &Nats, sequence: u64, view: &NetworkView, outcome: Outcome) -> ReportReceipt {
    let results = vec![ResourceOutcome::new(ResourceRef::Network(view.id), view.generation, outcome)];
    let body = NodeReport { node_id: NODE, incarnation: 1, sequence, results };
    call(node, Request::of::<ReportNode>(), &body, None).await.unwrap().data
}

#[tokio::test]
async fn network_is_created_reported_and_removed() {
    let daemon = OtherixdProcess::start().await;
    let (admin, node) = (daemon.connect("admin").await, daemon.node(NODE, "node-1").await);
    let joined = join(&node).await;
    assert_eq!(joined.decision_head.get(), daemon.position(1));
    let created = create(&admin, &draft("net-dev", "br-dev")).await;
    assert_eq!((created.status.expected, created.generation.get()), (1, daemon.position(2)));

    assert_eq!(report(&node, 1, &created, Outcome::Failed("no such thing".to_owned())).await.unknown, []);
    let failed = get(&admin, &created).await.unwrap();
    assert_eq!((failed.status.reported, failed.status.ready), (1, 0));
    assert_eq!(failed.status.nodes.unwrap().first().unwrap().error.as_deref(), Some("no such thing"));
    report(&node, 2, &created, Outcome::Ready).await;
    let by_name = ByName { name: "NET-DEV".to_owned() };
    let ready: Answer<NetworkView> = call(&admin, Request::of::<FindNetwork>(), &by_name, None).await.unwrap();
    assert_eq!((ready.data.status.ready, ready.meta.position.get()), (1, daemon.position(4)));

    let deleted: Answer<NetworkView> =
        call(&admin, Request::of::<DeleteNetwork>(), &NetworkById { id: created.id }, Some("delete")).await.unwrap();
    assert!(deleted.data.deleted_at.is_some());
    let deleting: Vec<_> = list_all(&admin).await.into_iter().map(|view| (view.id, view.deleted_at)).collect();
    assert_eq!(deleting, [(created.id, deleted.data.deleted_at)], "listed until its node has removed it");
    assert!(get(&admin, &created).await.unwrap().deleted_at.is_some(), "readable until its node has removed it");
    let found: Answer<NetworkView> = call(&admin, Request::of::<FindNetwork>(), &by_name, None).await.unwrap();
    assert_eq!(found.data.deleted_at, deleted.data.deleted_at);
    report(&node, 3, &deleted.data, Outcome::Removed).await;
    let gone = call::<NetworkView>(&admin, Request::of::<FindNetwork>(), &by_name, None).await.unwrap_err();
    assert_eq!(gone.error.code, ErrorCode::NotFound);
    assert_eq!(list_all(&admin).await, []);
    assert_eq!(get(&admin, &created).await.unwrap_err().error.code, ErrorCode::NotFound);
    assert_eq!(OutcomeStatus::Removed, Outcome::Removed.status());
    assert_eq!(daemon.assert_stream_is_copy().await, 6);
}

#[tokio::test]
async fn a_report_with_a_wrong_number_is_answered_and_silences_nobody() {
    let daemon = OtherixdProcess::start().await;
    let (admin, node) = (daemon.connect("admin").await, daemon.node(NODE, "node-1").await);
    join(&node).await;
    let network = create(&admin, &draft("net", "br-dev")).await;
    let sent = async |incarnation, sequence, outcome| {
        let results = vec![ResourceOutcome::new(ResourceRef::Network(network.id), network.generation, outcome)];
        let body = NodeReport { node_id: NODE, incarnation, sequence, results };
        try_call::<ReportReceipt>(&node, Request::of::<ReportNode>(), &body, None).await
    };
    let failed = || Outcome::Failed("broken".to_owned());
    for (incarnation, sequence) in [(u64::MAX, 1), (1 << 53, 1), ((1 << 40) + 1, 1), (1, u64::MAX)] {
        let Err(CallError::Refused(refusal)) = sent(incarnation, sequence, failed()).await else { panic!() };
        assert_eq!(refusal.error.code, ErrorCode::ValidationFailed);
        assert_eq!(refusal.error.details[LAST_REPORT], serde_json::Value::Null);
    }
    assert_eq!(sent(5, 2, failed()).await.unwrap().data.outdated, None);
    let outdated = sent(3, 9, Outcome::Ready).await.unwrap().data.outdated;
    assert_eq!(outdated, Some(ReportNumber { incarnation: 5, sequence: 2 }));
    assert_eq!(get(&admin, &network).await.unwrap().status.ready, 0);
    assert_eq!(sent(6, 1, Outcome::Ready).await.unwrap().data.outdated, None);
    assert_eq!(get(&admin, &network).await.unwrap().status.ready, 1);
    // A generation out of range is one that the control plane does not know.
    let far = Position::new(u64::MAX);
    let results = vec![ResourceOutcome::new(ResourceRef::Network(network.id), far, failed())];
    let body = NodeReport { node_id: NODE, incarnation: 6, sequence: 2, results };
    let receipt: ReportReceipt = call(&node, Request::of::<ReportNode>(), &body, None).await.unwrap().data;
    assert_eq!(receipt.unknown, [ResourceRef::Network(network.id)]);
}

async fn refused(connection: &Nats, request: Request, body: &impl serde::Serialize) -> (ErrorCode, String) {
    let body = serde_json::to_value(body).unwrap();
    let sent_at = Instant::now();
    let refusal = match try_call::<serde_json::Value>(connection, request, &body, None).await {
        Err(CallError::Refused(refusal)) => refusal.error,
        other => panic!("{other:?}"),
    };
    assert!(sent_at.elapsed().as_secs() < 2, "a refusal is immediate");
    (refusal.code, refusal.details.get("permission").and_then(|name| name.as_str()).unwrap_or_default().to_owned())
}

#[tokio::test]
async fn rejection_names_the_missing_permission() {
    let daemon = OtherixdProcess::start().await;
    let (admin, node) = (daemon.connect("admin").await, daemon.node(NODE, "node-1").await);
    join(&node).await;
    let view = create(&admin, &draft("net-dev", "br-dev")).await;
    let id = NetworkById { id: view.id };
    let report = NodeReport { node_id: NODE, incarnation: 1, sequence: 1, results: Vec::new() };
    let denied = |permission: &str| (ErrorCode::PermissionDenied, permission.to_owned());
    assert_eq!(refused(&admin, Request::of::<ReportNode>(), &report).await, denied("node:report"));
    assert_eq!(refused(&node, Request::of::<CreateNetwork>(), &draft("net-x", "br-x")).await, denied("network:manage"));
    assert_eq!(refused(&node, Request::of::<DeleteNetwork>(), &id).await, denied("network:manage"));
    assert_eq!(refused(&node, Request::of::<DeleteNode>(), &NodeById { id: NODE }).await, denied("node:manage"));
    assert_eq!(refused(&node, Request::of::<GetNetwork>(), &id).await, denied("network:read"));
    assert_eq!(
        refused(&node, Request::of::<ListNetworks>(), &NetworkPageRequest::default()).await,
        denied("network:read")
    );
    // Refused because of the content, not the user.
    let (code, _) = refused(&admin, Request::of::<CreateNetwork>(), &draft("net-dev", "br-dev")).await;
    assert_eq!(code, ErrorCode::Conflict);
    let (code, _) = refused(&admin, Request::of::<CreateNetwork>(), &draft("net-2", "otb1")).await;
    assert_eq!(code, ErrorCode::ValidationFailed);
    let (code, _) = refused(&admin, Request::of::<ListNetworks>(), &serde_json::json!({"limit": 0})).await;
    assert_eq!(code, ErrorCode::ValidationFailed);
    assert_eq!(daemon.assert_stream_is_copy().await, 2, "a refusal leaves no event");
}

#[tokio::test]
async fn queries_include_every_acknowledged_write() {
    const WORKERS: usize = 16;
    const WRITES: usize = 60;
    let daemon = OtherixdProcess::start().await;
    let writer = daemon.connect("admin").await;
    create(&writer, &draft("first", "br-first")).await;
    let work = (0..WORKERS).map(async |worker| {
        // Queried over a different connection than that of the writes.
        let reader = daemon.connect("admin").await;
        for number in 0..WRITES {
            let created = create(&writer, &overlay(&format!("net-{worker}-{number}"))).await;
            let got: Answer<NetworkView> =
                call(&reader, Request::of::<GetNetwork>(), &NetworkById { id: created.id }, None).await.unwrap();
            assert_eq!(got.data.name, created.name);
            assert!(got.meta.position >= created.generation);
            let before = otherix_schemas::position::Position::new(created.generation.get() - 1);
            let list = NetworkPageRequest { kind: None, limit: Some(1), cursor: Some(format!("v1.{before}")) };
            let listed: Answer<Vec<NetworkView>> =
                call(&reader, Request::of::<ListNetworks>(), &list, None).await.unwrap();
            assert_eq!(listed.data.first().unwrap().id, created.id);
            if number % 2 == 0 {
                let id = NetworkById { id: created.id };
                let key = format!("delete-{}", created.id);
                call::<NetworkView>(&writer, Request::of::<DeleteNetwork>(), &id, Some(&key)).await.unwrap();
                let gone = call::<NetworkView>(&reader, Request::of::<GetNetwork>(), &id, None).await.unwrap_err();
                assert_eq!(gone.error.code, ErrorCode::NotFound, "no node has to remove it");
            }
        }
    });
    futures::future::join_all(work).await;
    assert_eq!(list_all(&writer).await.len(), 1 + WORKERS * WRITES / 2);
}

#[tokio::test]
async fn every_declared_request_is_served() {
    let daemon = OtherixdProcess::start().await;
    let (admin, node) = (daemon.connect("admin").await, daemon.node(NODE, "node-1").await);
    let machine = daemon.connect_as(daemon.join_token(None, 1).await).await;
    for request in Request::all() {
        let caller = if Role::NodeJoin.has(request.permission) {
            &machine
        } else if Role::Node.has(request.permission) {
            &node
        } else {
            &admin
        };
        let (code, _) = refused(caller, request, &serde_json::json!({"colour": "red"})).await;
        assert_eq!(code, ErrorCode::ValidationFailed, "{request:?}");
    }
}
