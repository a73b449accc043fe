//! The JSON Schemas of all that crosses a boundary, and the AsyncAPI document that says where. Both
//! are checked in under `schemas/json/` and must be what this module gives.

use schemars::{JsonSchema, Schema, SchemaGenerator, generate::SchemaSettings};
use serde_json::{Value, json};

use crate::cloudevent::{self, Document};
use crate::error::ErrorBody;
use crate::event::stored::{
    ClusterRestoredV1, ClusterRestoredV2, NetworkCreatedV1, NetworkDeletedV1, NicAttachedV1, NicBoundV1, NicDetachedV1,
    NodeChangedV1, NodeJoinedV1, NodeReachableV1, NodeReconciledV1, NodeReconciledV2, NodeRemovedV1, NodeUnreachableV1,
    VmCreatedV1, VmDeletedV1,
};
use crate::network::NetworkDraft;
use crate::outcome::{NodeReport, ReportReceipt};
use crate::request::{
    Answer, ByName, Heartbeat, HeartbeatReply, JoinNode, Joined, ListNetworks, ListPage, NetworkById, NodeById, VmById,
};
use crate::subject::{HEARTBEATS, REQUESTS, Request};
use crate::view::{NetworkView, NodeView, RemovedNodeView, VmView};
use crate::vm::VmDraft;

/// Every schema by its name; the file is `<name>.json`.
pub fn all() -> Vec<(String, Schema)> {
    let mut schemas = vec![
        schema::<Document<Value>>("event"),
        schema::<NetworkCreatedV1>("network.created.v1"),
        schema::<NetworkDeletedV1>("network.deleted.v1"),
        schema::<VmCreatedV1>("vm.created.v1"),
        schema::<VmDeletedV1>("vm.deleted.v1"),
        schema::<NicAttachedV1>("nic.attached.v1"),
        schema::<NicBoundV1>("nic.bound.v1"),
        schema::<NicDetachedV1>("nic.detached.v1"),
        schema::<NodeJoinedV1>("node.joined.v1"),
        schema::<NodeChangedV1>("node.changed.v1"),
        schema::<NodeUnreachableV1>("node.unreachable.v1"),
        schema::<NodeReachableV1>("node.reachable.v1"),
        schema::<NodeRemovedV1>("node.removed.v1"),
        schema::<NodeReconciledV1>("node.reconciled.v1"),
        schema::<NodeReconciledV2>("node.reconciled.v2"),
        schema::<ClusterRestoredV1>("cluster.restored.v1"),
        schema::<ClusterRestoredV2>("cluster.restored.v2"),
        schema::<ErrorBody>("error"),
        schema::<Heartbeat>("heartbeat.request"),
        schema::<HeartbeatReply>("heartbeat.answer"),
    ];
    for request in Request::ALL {
        schemas.extend(request_schemas(request));
    }
    schemas
}

fn request_schemas(request: Request) -> [(String, Schema); 2] {
    match request {
        Request::NetworkCreate => pair::<NetworkDraft, NetworkView>(request),
        Request::NetworkDelete | Request::NetworkGet => pair::<NetworkById, NetworkView>(request),
        Request::NetworkFind => pair::<ByName, NetworkView>(request),
        Request::NetworkList => pair::<ListNetworks, Vec<NetworkView>>(request),
        Request::VmCreate => pair::<VmDraft, VmView>(request),
        Request::VmDelete | Request::VmGet => pair::<VmById, VmView>(request),
        Request::VmFind => pair::<ByName, VmView>(request),
        Request::VmList => pair::<ListPage, Vec<VmView>>(request),
        Request::NodeDelete => pair::<NodeById, RemovedNodeView>(request),
        Request::NodeGet => pair::<NodeById, NodeView>(request),
        Request::NodeFind => pair::<ByName, NodeView>(request),
        Request::NodeList => pair::<ListPage, Vec<NodeView>>(request),
        Request::NodeJoin => pair::<JoinNode, Joined>(request),
        Request::NodeReport => pair::<NodeReport, ReportReceipt>(request),
    }
}

fn pair<Body: JsonSchema, Data: JsonSchema>(request: Request) -> [(String, Schema); 2] {
    let name = request.as_str();
    [schema::<Body>(&format!("{name}.request")), schema::<Answer<Data>>(&format!("{name}.answer"))]
}

fn schema<T: JsonSchema>(name: &str) -> (String, Schema) {
    let mut schema = SchemaGenerator::new(SchemaSettings::draft2020_12()).into_root_schema_for::<T>();
    schema.insert("$id".to_owned(), Value::from(cloudevent::data_schema(name)));
    (name.to_owned(), schema)
}

/// The AsyncAPI 3.0 document: the channels that clients meet, with the schemas of what they carry.
pub fn asyncapi() -> Value {
    let file = |name: &str| json!({"$ref": format!("./{name}.json")});
    let event = |title: &str, address: &str| {
        json!({
            "address": address,
            "title": title,
            "messages": {"event": {"contentType": cloudevent::CONTENT_TYPE, "payload": file("event")}},
        })
    };
    let mut channels = serde_json::Map::new();
    for (name, title, subject) in [
        ("decisions", "What was decided, as the stream stores it", "otherix.evt.v1.{aggregate}.{event}.{id}"),
        ("outcomes", "How it went on a node, as the stream stores it", "otherix.out.v1.node.reconciled.{id}"),
        ("live-decisions", "Decisions as they are stored", "live.otherix.evt.v1.{aggregate}.{event}.{id}"),
        ("live-outcomes", "Outcomes as they are stored", "live.otherix.out.v1.node.reconciled.{id}"),
    ] {
        channels.insert(name.to_owned(), event(title, subject));
    }
    let exchange = |address: String, request: &str, answer: &str| {
        json!({
            "address": address,
            "messages": {
                "request": {"contentType": "application/json", "payload": file(request)},
                "answer": {"contentType": "application/json", "payload": file(answer)},
                "error": {"contentType": "application/json", "payload": file("error")},
            },
        })
    };
    for request in Request::ALL {
        let name = request.as_str();
        let address = format!("{REQUESTS}.{{user}}.{name}");
        channels.insert(name.to_owned(), exchange(address, &format!("{name}.request"), &format!("{name}.answer")));
    }
    channels.insert(
        "heartbeat".to_owned(),
        exchange(format!("{HEARTBEATS}.{{node}}"), "heartbeat.request", "heartbeat.answer"),
    );
    json!({
        "asyncapi": "3.0.0",
        "info": {"title": "otherix on NATS", "version": "1", "license": {"name": "Apache-2.0"}},
        "defaultContentType": "application/json",
        "channels": channels,
    })
}
