//! Accounts and permissions on NATS. Account `CONTROL` has the stream and the services; account `CLIENTS` has the users
//! and nodes, and a mirror of the stream.
//!
//! Two accounts, because the server checks no permission on the *reply* subject of a request: any user with `JetStream`
//! rights in an account can have the server publish into that account's streams. The services are imported with
//! `share`, because only then does the server attest the caller to them (`Nats-Request-Info`).

use otherix_schemas::subject::{HEARTBEATS, LIVE_PREFIX, REQUESTS, STREAM, requests_of};
use serde_json::{Value, json};

use super::credentials::NatsUsers;

/// The account of the stream and the services.
const CONTROL: &str = "CONTROL";

/// The account of users and nodes.
const CLIENTS: &str = "CLIENTS";

/// The prefix under which the mirror reaches `$JS.API` of `CONTROL`.
pub(super) const MIRROR_API: &str = "control.js";

/// The subject prefix on which `CONTROL` delivers messages to the mirror.
pub(super) const MIRROR_DELIVER: &str = "mirror.deliver";

/// Returns the accounts with their users, for the server's configuration.
pub(super) fn accounts(users: &NatsUsers) -> Value {
    json!({
        CONTROL: {
            "jetstream": "enabled",
            "users": [{ "user": users.control.user, "password": users.control.password }],
            "exports": control_exports(),
        },
        CLIENTS: {
            "jetstream": "enabled",
            "users": [
                { "user": users.clients.user, "password": users.clients.password },
                { "user": users.admin.user, "password": users.admin.password, "permissions": admin_permissions() },
                { "user": users.node.user, "password": users.node.password, "permissions": node_permissions() },
            ],
            "imports": clients_imports(),
        },
    })
}

/// The `JetStream` API subjects with which a mirror creates its consumer on the source, below `prefix`.
fn create_consumer(prefix: &str) -> [String; 2] {
    [format!("{prefix}.CONSUMER.CREATE.{STREAM}"), format!("{prefix}.CONSUMER.CREATE.{STREAM}.>")]
}

/// The subject of the mirror's flow-control replies.
fn flow_control() -> String {
    format!("$JS.FC.{STREAM}.>")
}

fn control_exports() -> Value {
    let to_clients = [CLIENTS];
    let [create, create_named] = create_consumer("$JS.API");
    json!([
        { "service": format!("{REQUESTS}.>"), "accounts": to_clients },
        { "service": format!("{HEARTBEATS}.>"), "accounts": to_clients },
        { "service": create, "response_type": "stream", "accounts": to_clients },
        { "service": create_named, "response_type": "stream", "accounts": to_clients },
        { "service": flow_control(), "accounts": to_clients },
        { "stream": format!("{LIVE_PREFIX}.otherix.>"), "accounts": to_clients },
        { "stream": format!("{MIRROR_DELIVER}.>"), "accounts": to_clients },
    ])
}

fn clients_imports() -> Value {
    let from_control = |subject: String| json!({ "account": CONTROL, "subject": subject });
    let [create, create_named] = create_consumer("$JS.API").map(from_control);
    let [as_create, as_create_named] = create_consumer(MIRROR_API);
    json!([
        { "service": from_control(format!("{REQUESTS}.>")), "share": true },
        { "service": from_control(format!("{HEARTBEATS}.>")), "share": true },
        { "service": create, "to": as_create },
        { "service": create_named, "to": as_create_named },
        { "service": from_control(flow_control()) },
        { "stream": from_control(format!("{LIVE_PREFIX}.otherix.>")) },
        { "stream": from_control(format!("{MIRROR_DELIVER}.>")) },
    ])
}

/// Permissions of an operator: requests, events, and `JetStream` consumers of any kind on the mirror.
fn admin_permissions() -> Value {
    let mut publish = vec![requests_of("admin")];
    publish.extend(["INFO", "STREAM.NAMES", "STREAM.LIST"].map(|api| format!("$JS.API.{api}")));
    publish.extend(
        ["STREAM.INFO", "STREAM.MSG.GET", "CONSUMER.NAMES", "CONSUMER.LIST"]
            .map(|api| format!("$JS.API.{api}.{STREAM}")),
    );
    publish.extend(
        ["CONSUMER.DURABLE.CREATE", "CONSUMER.INFO", "CONSUMER.DELETE", "CONSUMER.MSG.NEXT"]
            .map(|api| format!("$JS.API.{api}.{STREAM}.*")),
    );
    publish.extend(create_consumer("$JS.API"));
    publish.extend(direct_get());
    publish.extend(acknowledge());
    // `_INBOX` is the default reply prefix of NATS clients. No other user receives replies there.
    json!({
        "publish": { "allow": publish },
        "subscribe": { "allow": [format!("{LIVE_PREFIX}.otherix.>"), "_INBOX_admin.>", "_INBOX.>"] },
    })
}

/// Permissions of an agent: the node's requests and heartbeats, decisions, and ephemeral consumers to catch up.
fn node_permissions() -> Value {
    let mut publish = vec![
        requests_of("node"),
        format!("{HEARTBEATS}.>"),
        format!("$JS.API.STREAM.INFO.{STREAM}"),
        format!("$JS.API.CONSUMER.INFO.{STREAM}.*"),
        format!("$JS.API.CONSUMER.DELETE.{STREAM}.*"),
        format!("$JS.API.CONSUMER.MSG.NEXT.{STREAM}.*"),
    ];
    publish.extend(create_consumer("$JS.API"));
    publish.extend(direct_get());
    publish.extend(acknowledge());
    json!({
        "publish": { "allow": publish },
        "subscribe": { "allow": [format!("{LIVE_PREFIX}.otherix.evt.v1.>"), "_INBOX_node.>"] },
    })
}

fn direct_get() -> [String; 2] {
    [format!("$JS.API.DIRECT.GET.{STREAM}"), format!("$JS.API.DIRECT.GET.{STREAM}.>")]
}

fn acknowledge() -> [String; 2] {
    [format!("$JS.ACK.{STREAM}.>"), flow_control()]
}

#[cfg(test)]
mod tests {
    use otherix_schemas::request::Request;
    use otherix_schemas::subject::RequestSubject;
    use otherix_schemas::user::BUILT_IN;

    use super::*;

    /// Whether one of the subjects with wildcards matches.
    fn permits(permissions: &Value, subject: &str) -> bool {
        let matches = |pattern: &str| {
            let mut tokens = subject.split('.');
            for expected in pattern.split('.') {
                match (expected, tokens.next()) {
                    (">", Some(_)) => return true,
                    ("*", Some(_)) => {}
                    (expected, Some(token)) if expected == token => {}
                    _ => return false,
                }
            }
            tokens.next().is_none()
        };
        permissions["publish"]["allow"].as_array().unwrap().iter().any(|pattern| matches(pattern.as_str().unwrap()))
    }

    #[test]
    fn each_role_can_publish_its_own_requests_only() {
        let users = BUILT_IN.map(|(user, _)| user);
        for own in users {
            let permissions = if own == "admin" { admin_permissions() } else { node_permissions() };
            for (user, request) in users.into_iter().flat_map(|user| Request::all().map(move |it| (user, it))) {
                let subject = RequestSubject { user: user.parse().unwrap(), request }.to_string();
                assert_eq!(permits(&permissions, &subject), user == own, "{own}: {subject}");
            }
        }
    }
}
