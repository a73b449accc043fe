//! Requests that the program does not send: repeated ones, wrong types, and pages read during concurrent changes.

use std::time::Duration;

use otherix_schemas::error::{ErrorCode, ErrorInfo};
use otherix_schemas::network::{
    CreateNetwork, DeleteNetwork, FindNetwork, GetNetwork, ListNetworks, NetworkPageRequest,
};
use otherix_schemas::node::{FindNode, GetNode};
use otherix_schemas::request::{Answer, Request};
use otherix_schemas::vm::{CreateVm, DeleteVm, FindVm, GetVm};
use otherix_transport::Nats;
use otherix_transport::request::{CallError, CallOptions};
use serde_json::{Value, json};

use crate::control_plane::ControlPlane;
use crate::node::SimulatedNode;

async fn call(to: &Nats, request: Request, body: &Value, key: Option<&str>) -> Result<Answer<Value>, ErrorInfo> {
    let options = CallOptions { timeout: Duration::from_secs(5), idempotency_key: key.map(str::to_owned) };
    match to.call_untyped(request, body, options).await {
        Ok(answer) => Ok(answer),
        Err(CallError::Refused(refusal)) => Err(refusal.error),
        Err(error) => panic!("{error}"),
    }
}

fn bridge(name: &str) -> Value {
    json!({"name": name, "bridge_name": format!("br-{name}"), "managed": true})
}

#[tokio::test]
async fn replays_the_answer_for_a_network_key() {
    let control_plane = ControlPlane::start();
    let admin = control_plane.connect("admin").await;
    let create = Request::of::<CreateNetwork>();
    let first = call(&admin, create, &bridge("a"), Some("key")).await.expect("created");
    assert_eq!(call(&admin, create, &bridge("a"), Some("key")).await.expect("the same answer"), first);
    let mismatch = call(&admin, create, &bridge("b"), Some("key")).await.expect_err("another body");
    assert_eq!((mismatch.code, mismatch.code.status()), (ErrorCode::IdempotencyKeyMismatch, 409));
    let id = json!({"id": first.data["id"]});
    let mismatch = call(&admin, Request::of::<DeleteNetwork>(), &id, Some("key")).await.expect_err("another request");
    assert_eq!(mismatch.code, ErrorCode::IdempotencyKeyMismatch);
    // Without a key, or with another, the request is for a second network of this name.
    for key in [None, Some("other")] {
        let taken = call(&admin, create, &bridge("A"), key).await.expect_err("the name is taken");
        assert_eq!((taken.code, taken.code.status()), (ErrorCode::Conflict, 409));
    }
    // A refused request may be repeated with its key.
    let deleted = call(&admin, Request::of::<DeleteNetwork>(), &id, Some("delete")).await.expect("deleted");
    assert_eq!(
        call(&admin, Request::of::<DeleteNetwork>(), &id, Some("delete")).await.expect("the same answer"),
        deleted
    );
    let gone = call(&admin, Request::of::<DeleteNetwork>(), &id, Some("delete-2")).await.expect_err("it is deleted");
    assert_eq!((gone.code, gone.code.status()), (ErrorCode::NotFound, 404));
    assert!(call(&admin, create, &bridge("A"), Some("other")).await.is_ok(), "the name is free again");
    assert_eq!(call(&admin, create, &bridge("a"), Some("key")).await.expect("the same answer"), first);
    for key in ["", &"k".repeat(129)] {
        let refused = call(&admin, create, &bridge("c"), Some(key)).await.expect_err("no such key");
        assert_eq!(refused.code, ErrorCode::ValidationFailed);
    }
}

#[tokio::test]
async fn replays_the_answer_for_a_vm_key() {
    let control_plane = ControlPlane::start();
    let admin = control_plane.connect("admin").await;
    SimulatedNode::join(&control_plane, 1).await;
    let network = call(&admin, Request::of::<CreateNetwork>(), &bridge("a"), None).await.expect("created").data;
    let vm = |name: &str| {
        json!({
            "name": name, "image_url": "https://images.example/a", "arch": "amd64", "network_id": network["id"],
        })
    };
    let create = Request::of::<CreateVm>();
    let first = call(&admin, create, &vm("web"), Some("key")).await.expect("created");
    assert_eq!(
        call(&admin, create, &vm("web"), Some("key")).await.expect("the same answer"),
        first,
        "the same NIC, too"
    );
    let mismatch = call(&admin, create, &vm("db"), Some("key")).await.expect_err("another body");
    assert_eq!((mismatch.code, mismatch.code.status()), (ErrorCode::IdempotencyKeyMismatch, 409));
    let taken = call(&admin, create, &vm("WEB"), Some("other")).await.expect_err("the name is taken");
    assert_eq!(taken.code, ErrorCode::Conflict);
    let refused = call(&admin, Request::of::<DeleteNetwork>(), &json!({"id": network["id"]}), Some("gone")).await;
    let refused = refused.expect_err("a NIC is on it");
    assert_eq!((refused.code, refused.details["vm_nics"].clone()), (ErrorCode::Conflict, json!(1)));
    let id = json!({"id": first.data["id"]});
    let deleted = call(&admin, Request::of::<DeleteVm>(), &id, Some("delete")).await.expect("deleted");
    assert_eq!(call(&admin, Request::of::<DeleteVm>(), &id, Some("delete")).await.expect("the same answer"), deleted);
    let gone = call(&admin, Request::of::<DeleteVm>(), &id, Some("delete-2")).await.expect_err("it is deleted");
    assert_eq!((gone.code, gone.code.status()), (ErrorCode::NotFound, 404));
    // The refused deletion may be repeated with its key once nothing blocks it.
    assert!(call(&admin, Request::of::<DeleteNetwork>(), &json!({"id": network["id"]}), Some("gone")).await.is_ok());
    let unknown = call(&admin, create, &vm("db"), None).await.expect_err("the network is deleted");
    assert_eq!((unknown.code, unknown.code.status()), (ErrorCode::NotFound, 404));
}

#[tokio::test]
async fn reports_wrong_types_with_all_violations() {
    let control_plane = ControlPlane::start();
    let admin = control_plane.connect("admin").await;
    let malformed = json!({
        "name": ["a"], "type": 7, "bridge_name": {}, "managed": "yes", "egress": true, "subnet": 10, "gateway": 1.5,
        "mtu": "1500", "vlan": 1.5, "colour": "red",
    });
    let all = ["bridge_name", "colour", "egress", "gateway", "managed", "mtu", "name", "subnet", "type", "vlan"];
    let cases: [(Value, &[&str]); 7] = [
        (malformed, &all),
        (json!({"bridge_name": "br0"}), &["name"]),
        (json!({"name": null, "bridge_name": "br0"}), &["name"]),
        (json!({"name": "a\u{0}b", "bridge_name": "br\u{0}"}), &["bridge_name", "name"]),
        (json!({"name": "a", "bridge_name": "br0", "mtu": 1e3}), &["mtu"]),
        (json!({"name": "a", "bridge_name": "br0", "mtu": u64::MAX}), &["mtu"]),
        (json!({"name": "a", "bridge_name": "br0", "id": "0198b2c4-7a60-7c3e-9d0f-5b1d2f0a9c11"}), &["id"]),
    ];
    for (body, fields) in cases {
        let refused = call(&admin, Request::of::<CreateNetwork>(), &body, None).await.expect_err("refused");
        let named: Vec<&str> =
            refused.details["fields"].as_object().expect("fields").keys().map(String::as_str).collect();
        assert_eq!((refused.code, named), (ErrorCode::ValidationFailed, fields.to_vec()), "{body}");
    }
    let malformed = json!({"name": 7, "image_url": [], "arch": 1, "network_id": "net", "node_id": {}, "cpus": 4});
    let refused = call(&admin, Request::of::<CreateVm>(), &malformed, None).await.expect_err("refused");
    let named: Vec<&str> = refused.details["fields"].as_object().expect("fields").keys().map(String::as_str).collect();
    assert_eq!(named, ["arch", "cpus", "image_url", "name", "network_id", "node_id"]);
    let requests = [
        [
            Request::of::<CreateNetwork>(),
            Request::of::<DeleteNetwork>(),
            Request::of::<GetNetwork>(),
            Request::of::<FindNetwork>(),
        ],
        [Request::of::<CreateVm>(), Request::of::<DeleteVm>(), Request::of::<GetVm>(), Request::of::<FindVm>()],
    ];
    for body in [json!([]), json!("a"), json!(null), json!({"id": "x"}), json!({})] {
        for request in requests.into_iter().flatten().chain([Request::of::<GetNode>(), Request::of::<FindNode>()]) {
            let refused = call(&admin, request, &body, None).await.expect_err("refused");
            assert_eq!(refused.code, ErrorCode::ValidationFailed, "{request:?} {body}");
        }
    }
}

/// Reads all pages while networks are created and deleted.
async fn pages(reader: &Nats, kind: Option<&str>) -> Vec<(String, String)> {
    let mut received = Vec::new();
    let mut cursor = None;
    loop {
        let body = json!(NetworkPageRequest { kind: kind.map(str::to_owned), limit: Some(3), cursor });
        let page = call(reader, Request::of::<ListNetworks>(), &body, None).await.expect("a page");
        let rows = page.data.as_array().expect("rows");
        assert!(rows.len() <= 3);
        let text = |row: &Value, key: &str| row[key].as_str().expect("a string").to_owned();
        received.extend(rows.iter().map(|row| (text(row, "created_at"), text(row, "name"))));
        cursor = page.meta.next_cursor;
        if cursor.is_none() {
            return received;
        }
    }
}

#[tokio::test]
async fn pages_are_stable_under_concurrent_changes() {
    let control_plane = ControlPlane::start();
    let (writer, reader) = (control_plane.connect("admin").await, control_plane.connect("admin").await);
    for number in 0..30 {
        let kind = if number % 2 == 0 { bridge(&format!("stay-{number}")) } else { overlay(&format!("stay-{number}")) };
        call(&writer, Request::of::<CreateNetwork>(), &kind, None).await.expect("created");
    }
    let churn = async {
        for number in 0..60 {
            let made = call(&writer, Request::of::<CreateNetwork>(), &overlay(&format!("go-{number}")), None).await;
            let id = json!({"id": made.expect("created").data["id"]});
            call(&writer, Request::of::<DeleteNetwork>(), &id, None).await.expect("deleted");
        }
    };
    let read = async {
        for _ in 0..6 {
            for (kind, expected) in [(None, 30), (Some("overlay"), 15), (Some("bridge"), 15)] {
                let received = pages(&reader, kind).await;
                assert!(received.is_sorted(), "in the order of creation: {received:?}");
                let stay: Vec<_> = received.iter().filter(|(_, name)| name.starts_with("stay-")).collect();
                assert_eq!(stay.len(), expected, "{stay:?}");
            }
        }
    };
    futures::join!(churn, read);
}

fn overlay(name: &str) -> Value {
    json!({"name": name, "type": "overlay", "subnet": "10.7.0.0/24"})
}
