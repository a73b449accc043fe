//! The JSON Schemas of all that crosses a boundary, and the AsyncAPI document that says where. Both
//! are checked in under `schemas/json/` and must be what this module gives.

use schemars::{JsonSchema, Schema, SchemaGenerator, generate::SchemaSettings};
use serde_json::{Value, json};

use crate::cloudevent::{self, Document};
use crate::error::ErrorBody;
use crate::event::Event;
use crate::network::{NetworkById, NetworkDraft, NetworkPageRequest, NetworkView};
use crate::node::{
    Heartbeat, HeartbeatAnswer, JoinAnswer, JoinRequest, NodeById, NodeReport, NodeView, RemovedNodeView, ReportReceipt,
};
use crate::request::{Answer, ByName, PageRequest, Request};
use crate::subject::{HEARTBEATS, REQUESTS};
use crate::vm::{VmById, VmDraft, VmView};

/// Every schema by its name; the file is `<name>.json`.
pub fn all() -> Vec<(String, Schema)> {
    let fixed = |name: &str, schema: fn(&str) -> Schema| (name.to_owned(), schema(name));
    let mut schemas = vec![
        fixed("event", schema::<Document<Value>>),
        fixed("error", schema::<ErrorBody>),
        fixed("heartbeat.request", schema::<Heartbeat>),
        fixed("heartbeat.answer", schema::<HeartbeatAnswer>),
    ];
    let events = Event::declarations();
    schemas.extend(events.map(|declaration| (declaration.schema_name().to_owned(), declaration.schema())));
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
        Request::NetworkList => pair::<NetworkPageRequest, Vec<NetworkView>>(request),
        Request::VmCreate => pair::<VmDraft, VmView>(request),
        Request::VmDelete | Request::VmGet => pair::<VmById, VmView>(request),
        Request::VmFind => pair::<ByName, VmView>(request),
        Request::VmList => pair::<PageRequest, Vec<VmView>>(request),
        Request::NodeDelete => pair::<NodeById, RemovedNodeView>(request),
        Request::NodeGet => pair::<NodeById, NodeView>(request),
        Request::NodeFind => pair::<ByName, NodeView>(request),
        Request::NodeList => pair::<PageRequest, Vec<NodeView>>(request),
        Request::NodeJoin => pair::<JoinRequest, JoinAnswer>(request),
        Request::NodeReport => pair::<NodeReport, ReportReceipt>(request),
    }
}

fn pair<Body: JsonSchema, Data: JsonSchema>(request: Request) -> [(String, Schema); 2] {
    let (body, answer) = (format!("{}.request", request.as_str()), format!("{}.answer", request.as_str()));
    [(body.clone(), schema::<Body>(&body)), (answer.clone(), schema::<Answer<Data>>(&answer))]
}

/// The JSON Schema of `T` under this name.
pub(crate) fn schema<T: JsonSchema>(name: &str) -> Schema {
    let mut schema = SchemaGenerator::new(SchemaSettings::draft2020_12()).into_root_schema_for::<T>();
    schema.insert("$id".to_owned(), Value::from(cloudevent::data_schema(name)));
    schema
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
