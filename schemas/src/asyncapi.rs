//! The AsyncAPI 3.0 document: every channel of the control plane on NATS, who sends and receives on it, and the schemas
//! of the messages. Checked in as `schemas/json/asyncapi.yaml`.

use serde_json::{Map, Value, json};

use crate::cloudevent;
use crate::event::{Event, EventDeclaration, Family};
use crate::json_schema::schema_id;
use crate::request::{AT, DRY_RUN, IDEMPOTENCY_KEY, IDEMPOTENCY_KEY_MAX, Request, RequestKind, STALE, TRACEPARENT};
use crate::subject::{HEARTBEATS, LIVE_PREFIX, REQUESTS, STREAM};

/// Returns the document. It describes the control plane: `receive` is what clients and nodes send.
pub fn asyncapi() -> Value {
    let mut channels = Map::new();
    let mut operations = Map::new();
    for channel in EVENT_CHANNELS {
        channel.describe(&mut channels, &mut operations);
    }
    for request in Request::all() {
        describe(&Exchange::of_request(request), &mut channels, &mut operations);
    }
    describe(&Exchange::heartbeat(), &mut channels, &mut operations);
    json!({
        "asyncapi": "3.0.0",
        "info": {
            "title": "otherix on NATS",
            "version": "1",
            "description": DESCRIPTION,
            "license": {"name": "Apache-2.0", "url": "https://www.apache.org/licenses/LICENSE-2.0"},
        },
        "servers": {
            "nats": {
                "host": "127.0.0.1:4222",
                "protocol": "nats",
                "description": "The NATS server that `otherixd` supervises; `--listen` sets its address. Users connect \
                    with a `.creds` file; `user` in subjects is their public key.",
            },
        },
        "defaultContentType": "application/json",
        "channels": channels,
        "operations": operations,
        "components": {"messages": event_messages()},
    })
}

const DESCRIPTION: &str = "The control plane of an otherix cluster. Clients send requests and receive events; nodes \
    follow decisions, and send reports and heartbeats. Every answer and every event names a position: the number of an \
    event in the event store, which is also its sequence on the stream.";

/// A reference to a checked-in JSON Schema.
fn schema_file(name: &str) -> Value {
    json!({"$ref": format!("./{name}.json")})
}

fn reference(path: &[&str]) -> Value {
    // RFC 6901, section 3.
    let escaped: Vec<_> = path.iter().map(|token| token.replace('~', "~0").replace('/', "~1")).collect();
    json!({"$ref": format!("#/{}", escaped.join("/"))})
}

/// A channel on which events are published.
struct EventChannel {
    name: &'static str,
    family: Family,
    /// Published when the event is durable, rather than stored on the stream.
    live: bool,
    title: &'static str,
    description: &'static str,
}

const EVENT_CHANNELS: [EventChannel; 6] = [
    EventChannel {
        name: "decisions",
        family: Family::Decision,
        live: false,
        title: "Decisions on the stream",
        description: "What nodes must do, in order. Read by direct gets; nothing is lost.",
    },
    EventChannel {
        name: "outcomes",
        family: Family::Outcome,
        live: false,
        title: "Outcomes on the stream",
        description: "What nodes reported, in order. Read by direct gets; nothing is lost.",
    },
    EventChannel {
        name: "administration",
        family: Family::Administration,
        live: false,
        title: "Events about users, on the stream",
        description: "Users, their roles and public keys, in order. Read by direct gets; nothing is lost.",
    },
    EventChannel {
        name: "live-decisions",
        family: Family::Decision,
        live: true,
        title: "Decisions, live",
        description: "Each decision once it is durable, to current subscribers only: `decisionprev` shows a gap.",
    },
    EventChannel {
        name: "live-outcomes",
        family: Family::Outcome,
        live: true,
        title: "Outcomes, live",
        description: "Each outcome once it is durable, to current subscribers only.",
    },
    EventChannel {
        name: "live-administration",
        family: Family::Administration,
        live: true,
        title: "Events about users, live",
        description: "Each event about a user once it is durable, to current subscribers only.",
    },
];

impl EventChannel {
    fn events(&self) -> impl Iterator<Item = &'static EventDeclaration> {
        Event::declarations().filter(|declaration| declaration.family == self.family)
    }

    fn describe(&self, channels: &mut Map<String, Value>, operations: &mut Map<String, Value>) {
        let prefix = if self.live { format!("{LIVE_PREFIX}.") } else { String::new() };
        let values = |value: fn(&EventDeclaration) -> &str| {
            let mut values: Vec<_> = self.events().map(value).collect();
            values.sort_unstable();
            values.dedup();
            values
        };
        let messages: Map<_, _> = self
            .events()
            .map(EventDeclaration::schema_name)
            .map(|name| (name.to_owned(), reference(&["components", "messages", name])))
            .collect();
        let description = if self.live {
            self.description.to_owned()
        } else {
            let stream = format!(
                "Stored on the JetStream stream `{STREAM}`; users with `audit:read` read it in domain `events`."
            );
            format!("{} {stream}", self.description)
        };
        let channel = json!({
            "address": format!("{prefix}otherix.{}.v1.{{aggregate}}.{{event}}.{{id}}", self.family.token()),
            "title": self.title,
            "description": description,
            "messages": messages,
            "parameters": {
                "aggregate": {
                    "description": "The type of the aggregate that the event belongs to.",
                    "enum": values(EventDeclaration::aggregate),
                },
                "event": {"description": "What happened.", "enum": values(EventDeclaration::event_name)},
                "id": {"description": "The id of the aggregate."},
            },
        });
        channels.insert(self.name.to_owned(), channel);
        let operation = json!({
            "action": "send",
            "channel": reference(&["channels", self.name]),
            "title": self.title,
            "summary": self.description,
        });
        operations.insert(self.name.to_owned(), operation);
    }
}

/// One message for each stored shape, with the envelope's `type` and `dataschema` fixed.
fn event_messages() -> Map<String, Value> {
    let message = |declaration: &EventDeclaration| {
        let name = declaration.schema_name();
        json!({
            "name": declaration.type_name,
            "title": declaration.summary,
            "contentType": cloudevent::CONTENT_TYPE,
            "payload": {
                "allOf": [
                    schema_file("event"),
                    {
                        "type": "object",
                        "properties": {
                            "type": {"type": "string", "const": declaration.type_name},
                            "dataschema": {"type": "string", "const": schema_id(name)},
                            "data": schema_file(name),
                        },
                    },
                ],
            },
        })
    };
    Event::declarations().map(|declaration| (declaration.schema_name().to_owned(), message(declaration))).collect()
}

/// A request and its answer.
struct Exchange {
    name: String,
    address: String,
    parameters: Value,
    summary: String,
    description: String,
    headers: Value,
    tags: Value,
}

impl Exchange {
    fn of_request(request: Request) -> Self {
        let header = |description: &str| json!({"type": "string", "description": description});
        let mut headers = Map::new();
        headers.insert(TRACEPARENT.to_owned(), header("W3C trace context; part of the resulting events."));
        let service = request.service();
        match request.kind {
            RequestKind::Command(_) => {
                let text =
                    "Makes the command safe to retry: for 24 h, the same key and body return the first success again.";
                let key = json!({
                    "type": "string",
                    "minLength": 1,
                    "maxLength": IDEMPOTENCY_KEY_MAX,
                    "description": text,
                });
                headers.insert(IDEMPOTENCY_KEY.to_owned(), key);
                let text = "Any value: decide the command and record nothing; the answer is what it would be.";
                headers.insert(DRY_RUN.to_owned(), header(text));
            }
            RequestKind::Query => {
                let text = "Any value: answer at once, even if the read models lag behind acknowledged writes.";
                headers.insert(STALE.to_owned(), header(text));
                let text = "A position or an RFC 3339 time: answer as it was then. Only networks, VMs and nodes.";
                headers.insert(AT.to_owned(), header(text));
            }
            RequestKind::Lookup | RequestKind::Unrecorded | RequestKind::Maintenance | RequestKind::Relayed => {}
        }
        let permission = request.permission.as_str();
        Self {
            name: request.name.to_owned(),
            address: format!("{REQUESTS}.{{user}}.{}", request.name),
            parameters: json!({"user": {"description": "The user, who must be the one that the NATS server attests."}}),
            summary: request.summary.to_owned(),
            description: format!("{} Requires the permission `{permission}`.", request.description),
            headers: Value::Object(headers),
            tags: json!([{"name": service.name()}, {"name": request.resource()}]),
        }
    }

    fn heartbeat() -> Self {
        Self {
            name: "heartbeat".to_owned(),
            address: format!("{HEARTBEATS}.{{node}}"),
            parameters: json!({"node": {"description": "The id of the node."}}),
            summary: "Show that a node is reachable".to_owned(),
            description: "Sent every 5 s. A node is unreachable after 15 s without a heartbeat.".to_owned(),
            headers: json!({}),
            tags: json!([{"name": "node"}]),
        }
    }
}

fn describe(exchange: &Exchange, channels: &mut Map<String, Value>, operations: &mut Map<String, Value>) {
    let Exchange { name, address, parameters, summary, description, headers, tags } = exchange;
    let payload = |kind: &str| schema_file(&format!("{name}.{kind}"));
    let error_headers = json!({
        "type": "object",
        "properties": {
            "Nats-Service-Error": {"type": "string", "description": "The error's code."},
            "Nats-Service-Error-Code": {"type": "string", "description": "The corresponding HTTP status."},
        },
        "required": ["Nats-Service-Error", "Nats-Service-Error-Code"],
    });
    let request = json!({
        "title": summary,
        "headers": {"type": "object", "properties": headers},
        "payload": payload("request"),
    });
    channels.insert(
        name.clone(),
        json!({"address": address, "title": summary, "parameters": parameters, "messages": {"request": request}}),
    );
    let reply = format!("{name}.reply");
    channels.insert(
        reply.clone(),
        json!({
            "address": null,
            "title": format!("Answer to `{name}`"),
            "description": "The reply subject of the request.",
            "messages": {
                "answer": {"title": "Success", "payload": payload("answer")},
                "error": {"title": "Failure", "headers": error_headers, "payload": schema_file("error")},
            },
        }),
    );
    operations.insert(
        name.clone(),
        json!({
            "action": "receive",
            "channel": reference(&["channels", name]),
            "title": summary,
            "description": description,
            "tags": tags,
            "messages": [reference(&["channels", name, "messages", "request"])],
            "reply": {
                "channel": reference(&["channels", &reply]),
                "messages": [
                    reference(&["channels", &reply, "messages", "answer"]),
                    reference(&["channels", &reply, "messages", "error"]),
                ],
            },
        }),
    );
}
