//! What a client may send costs nobody but that client anything: raw bytes as subjects and headers, huge requests,
//! floods. Sent over a plain TCP connection, because client libraries refuse to send some of it.

use otherix_identity::Creds;
use otherix_schemas::error::ErrorCode;
use otherix_schemas::id::NodeId;
use otherix_schemas::network::CreateNetwork;
use otherix_schemas::request::Request;
use otherix_schemas::subject::{RequestSubject, heartbeat};
use serde_json::{Map, Value, json};
use uuid::Uuid;

use crate::daemon::{OtherixdProcess, call, list_all};
use crate::raw_client::RawClient;

/// Header blocks that are malformed, each in its own way.
const HEADERS: [&[u8]; 12] = [
    // Ends programs with async-nats 0.51.
    b"NATS/1.0\r\nX: a\rb\r\n\r\n",
    b"NATS/1.0\r\nX: \xff\xfe\r\n\r\n",
    b"NATS/1.0\r\nno colon\r\n\r\n",
    b"NATS/1.0\r\n: no name\r\n\r\n",
    b"NATS/1.0\r\na name: value\r\n\r\n",
    b"NATS/1.0 99999999999999\r\n\r\n",
    b"NATS/1.0 abc\r\n\r\n",
    b"NATS/1.0\xc2\xa0\r\n\r\n",
    b"NATS/1.0\r\nX: \0\r\n\r\n",
    b"NATS/1.0\r\nX: a\n\r\n",
    b"NATS/9.9\r\nX: y\r\n\r\n",
    b"NATS/1.0\r\n\r\n\r\n\r\n",
];

/// Last tokens of subjects that no client library sends.
const TOKENS: [&[u8]; 5] = [b"\xc2\xa0", b"a\x0bb", b"\xff", b"\xe2\x80\xa8x", b"\x01"];

/// The subjects that a user may publish on to otherix.
fn subjects(user: &str) -> Vec<String> {
    let requests = Request::all().map(|request| RequestSubject { user: user.parse().unwrap(), request }.to_string());
    let others =
        [format!("otherix.req.v1.{user}"), format!("otherix.req.v1.{user}.x"), heartbeat(&user.parse().unwrap())];
    requests.chain(others).collect()
}

fn lost_connections(daemon: &OtherixdProcess) -> usize {
    daemon.log().matches("there is no connection to NATS").count()
}

#[tokio::test]
async fn no_message_ends_the_control_plane_or_a_connection() {
    let daemon = OtherixdProcess::start().await;
    let url = daemon.url().await;
    let node = daemon.enroll(NodeId::new(Uuid::from_u128(7)), "node-7").await;
    let admin = daemon.connect("admin").await;
    list_all(&admin).await;
    let (pid, lost, connects) = (daemon.pid(), lost_connections(&daemon), *admin.connects().borrow());
    let machine = daemon.join_token(None, 1).await;
    for creds in [Creds::load(&daemon.credentials("admin")).unwrap(), node, machine] {
        let url = url.clone();
        let attack = move || {
            let mut client = RawClient::connect(&url, &creds);
            for subject in subjects(&client.user.clone()) {
                for headers in HEADERS {
                    client.publish(subject.as_bytes(), Some("raw"), headers, b"{}");
                    client.publish(subject.as_bytes(), None, headers, b"\xff");
                }
                for token in TOKENS {
                    let subject = [subject.as_bytes(), b".", token].concat();
                    client.publish(&subject, Some("raw"), b"NATS/1.0\r\n\r\n", b"");
                }
                client.settle();
            }
        };
        tokio::task::spawn_blocking(attack).await.unwrap();
        list_all(&admin).await;
    }
    assert_eq!(daemon.pid(), pid);
    assert_eq!(lost_connections(&daemon), lost, "{}", daemon.log());
    assert_eq!(*admin.connects().borrow(), connects);
    let noise = daemon.log().lines().filter(|line| !line.contains(" DEBUG ")).count();
    assert!(noise < 100, "{noise} lines:\n{}", daemon.log());
}

#[tokio::test]
async fn a_request_with_malformed_headers_is_answered() {
    let daemon = OtherixdProcess::start().await;
    let creds = Creds::load(&daemon.credentials("admin")).unwrap();
    let mut client = RawClient::connect(&daemon.url().await, &creds);
    let subject = format!("otherix.req.v1.{}.network.list", client.user);
    client.publish(subject.as_bytes(), Some("raw"), HEADERS[0], b"{}");
    loop {
        let line = client.line();
        if line.starts_with("HMSG") {
            break;
        }
        assert!(!line.is_empty(), "the connection is closed");
    }
    let mut answer = String::new();
    while !answer.contains("control characters") {
        answer = client.line();
    }
    assert!(answer.contains("validation_failed"), "{answer}");
}

#[tokio::test]
async fn huge_requests_get_short_answers() {
    let daemon = OtherixdProcess::start().await;
    let admin = daemon.connect("admin").await;
    let create = Request::of::<CreateNetwork>();
    let unknown: Map<String, Value> = (0..75_000).map(|number| (format!("f{number}"), json!(1))).collect();
    let long = "x".repeat(1_000_000);
    for body in [
        Value::Object(unknown),
        json!({ "name": long }),
        json!({ long.as_str(): 1 }),
        json!({ "type": long }),
        json!([long.as_str()]),
        json!(long),
    ] {
        let refused = call::<Value>(&admin, create, &body, None).await.unwrap_err();
        assert_eq!(refused.error.code, ErrorCode::ValidationFailed);
        assert!(serde_json::to_vec(&refused).unwrap().len() < 200_000);
    }
}
