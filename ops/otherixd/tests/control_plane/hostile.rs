//! What a client may send costs nobody but that client anything: raw bytes as subjects and headers, huge requests,
//! floods. Sent over a plain TCP connection, because client libraries refuse to send some of it.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;

use otherix_schemas::error::ErrorCode;
use otherix_schemas::id::NodeId;
use otherix_schemas::network::CreateNetwork;
use otherix_schemas::request::Request;
use otherix_schemas::subject::{RequestSubject, heartbeat};
use otherix_transport::Credentials;
use serde_json::{Map, Value, json};
use uuid::Uuid;

use crate::daemon::{DEADLINE, OtherixdProcess, call, list_all};

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

/// A client that sends bytes as they are.
struct RawClient {
    stream: TcpStream,
    arriving: BufReader<TcpStream>,
    user: String,
}

impl RawClient {
    fn connect(url: &str, credentials: Credentials) -> Self {
        let stream = TcpStream::connect(url.trim_start_matches("nats://")).unwrap();
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        let arriving = BufReader::new(stream.try_clone().unwrap());
        let Credentials::Key(creds) = credentials else { panic!("a key") };
        let mut client = Self { stream, arriving, user: creds.user().to_string() };
        let info: Value = serde_json::from_str(client.line().strip_prefix("INFO ").unwrap()).unwrap();
        let signature = creds.sign_nonce(info["nonce"].as_str().unwrap());
        let connect = json!({ "verbose": false, "headers": true, "no_responders": true, "protocol": 1,
            "jwt": creds.jwt(), "sig": signature });
        client.send(&[b"CONNECT ", connect.to_string().as_bytes(), b"\r\n"]);
        client.send(&[b"SUB ", client.inbox("*").as_bytes(), b" 1\r\n"]);
        client.settle();
        client
    }

    fn inbox(&self, token: &str) -> String {
        format!("_INBOX_{}.{token}", self.user)
    }

    fn send(&mut self, parts: &[&[u8]]) {
        self.stream.write_all(&parts.concat()).unwrap();
    }

    fn line(&mut self) -> String {
        let mut line = Vec::new();
        self.arriving.read_until(b'\n', &mut line).unwrap();
        String::from_utf8_lossy(&line).trim_end().to_owned()
    }

    /// Sends a message with these bytes as its headers.
    fn publish(&mut self, subject: &[u8], reply: Option<&str>, headers: &[u8], body: &[u8]) {
        let reply = reply.map(|reply| format!("{} ", self.inbox(reply))).unwrap_or_default();
        let lengths = format!("{} {}\r\n", headers.len(), headers.len() + body.len());
        self.send(&[b"HPUB ", subject, b" ", reply.as_bytes(), lengths.as_bytes(), headers, body, b"\r\n"]);
    }

    /// Waits until the server has processed what was sent. Returns how many messages arrived.
    fn settle(&mut self) -> usize {
        self.send(&[b"PING\r\n"]);
        let mut messages = 0;
        loop {
            let line = self.line();
            match line.split(' ').next().unwrap() {
                "PONG" => return messages,
                "PING" => self.send(&[b"PONG\r\n"]),
                "MSG" | "HMSG" => {
                    let length: usize = line.rsplit(' ').next().unwrap().parse().unwrap();
                    std::io::copy(&mut (&mut self.arriving).take(length as u64 + 2), &mut std::io::sink()).unwrap();
                    messages += 1;
                }
                _ => {}
            }
        }
    }
}

/// The subjects that a user may publish on to otherix.
fn subjects(user: &str, node: NodeId) -> Vec<String> {
    let requests = Request::all().map(|request| RequestSubject { user: user.parse().unwrap(), request }.to_string());
    let others = [format!("otherix.req.v1.{user}"), format!("otherix.req.v1.{user}.x"), heartbeat(node)];
    requests.chain(others).collect()
}

fn lost_connections(daemon: &OtherixdProcess) -> usize {
    daemon.log().matches("there is no connection to NATS").count()
}

#[tokio::test]
async fn no_message_ends_the_control_plane_or_a_connection() {
    let daemon = OtherixdProcess::start().await;
    let (url, node) = (daemon.url().await, NodeId::new(Uuid::from_u128(7)));
    let admin = daemon.connect("admin").await;
    list_all(&admin).await;
    let (pid, lost, connects) = (daemon.pid(), lost_connections(&daemon), *admin.connects().borrow());
    for user in ["admin", "node"] {
        let (url, credentials) = (url.clone(), Credentials::load(&daemon.credentials(user)).unwrap());
        let attack = move || {
            let mut client = RawClient::connect(&url, credentials);
            for subject in subjects(&client.user.clone(), node) {
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
    let credentials = Credentials::load(&daemon.credentials("admin")).unwrap();
    let mut client = RawClient::connect(&daemon.url().await, credentials);
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
