//! etcd, and the few messages of its gRPC API (`etcdserverpb.KV`, etcd 3.4) that the bench sends: a transaction that
//! puts a key if it does not exist, the equivalent of creating a resource with a unique name.

use std::cell::Cell;
use std::path::Path;
use std::time::{Duration, Instant};

use bytes::{BufMut, Bytes, BytesMut};
use h2::client::SendRequest;
use h2::{RecvStream, client};
use http::Request;
use tokio::net::TcpStream;

use super::process::{ServerProcess, find, free_port};
use crate::BenchError;

/// Bytes of each value: about the size of the event of a created network.
pub(super) const VALUE: usize = 600;

/// Connections that requests are spread over.
const CONNECTIONS: usize = 4;

/// How long the server may take to serve.
const START_WITHIN: Duration = Duration::from_secs(20);

/// Pause between attempts to connect while it starts.
const RETRY: Duration = Duration::from_millis(50);

/// HTTP/2 window of each stream and connection, in bytes: large enough not to be a limit.
const WINDOW: u32 = 1 << 20;

/// A server with an empty store, and connections to it.
pub(super) struct Etcd {
    connections: Vec<SendRequest<Bytes>>,
    uri: String,
    next: Cell<usize>,
    _process: ServerProcess,
}

impl Etcd {
    /// Starts `etcd` with its data below `folder`; `None` if it is not installed.
    pub(super) async fn start(folder: &Path) -> Result<Option<Self>, BenchError> {
        let Some(program) = find("etcd", folder) else { return Ok(None) };
        let data = folder.join("etcd");
        let (clients, peers) = (url(free_port()?), url(free_port()?));
        let cluster = format!("default={peers}");
        let data = data.to_str().ok_or("the folder's name is not UTF-8")?;
        // All else has its default: every transaction is in a write-ahead log that is synced to the disk.
        let arguments = [
            ["--data-dir", data],
            ["--listen-client-urls", &clients],
            ["--advertise-client-urls", &clients],
            ["--listen-peer-urls", &peers],
            ["--initial-advertise-peer-urls", &peers],
            ["--initial-cluster", &cluster],
            ["--log-level", "warn"],
            ["--logger", "zap"],
        ];
        let mut process = ServerProcess::spawn(&program, &arguments.concat(), &folder.join("etcd.log"))?;
        let address = clients.trim_start_matches("http://").to_owned();
        let deadline = Instant::now() + START_WITHIN;
        let mut connections = Vec::new();
        while connections.len() < CONNECTIONS {
            process.check()?;
            match connect(&address).await {
                Ok(connection) => connections.push(connection),
                Err(error) if Instant::now() > deadline => return Err(error),
                Err(_) => tokio::time::sleep(RETRY).await,
            }
        }
        let uri = format!("{clients}/etcdserverpb.KV/Txn");
        Ok(Some(Self { connections, uri, next: Cell::new(0), _process: process }))
    }

    /// Creates `key`, which must not exist, with `value`.
    pub(super) async fn create(&self, key: &str, value: &[u8]) -> Result<(), BenchError> {
        let turn = self.next.replace(self.next.get().wrapping_add(1)) % CONNECTIONS;
        let connection = self.connections.get(turn).ok_or("there is no connection")?;
        let mut connection = connection.clone().ready().await?;
        let request = Request::post(&self.uri).header("content-type", "application/grpc").header("te", "trailers");
        let (answer, mut body) = connection.send_request(request.body(())?, false)?;
        body.send_data(grpc_message(&create_transaction(key.as_bytes(), value)), true)?;
        let answer = answer.await?;
        let message = read_message(answer.into_body()).await?;
        if succeeded(&message) { Ok(()) } else { Err(format!("etcd has not created `{key}`").into()) }
    }
}

fn url(port: u16) -> String {
    format!("http://127.0.0.1:{port}")
}

async fn connect(address: &str) -> Result<SendRequest<Bytes>, BenchError> {
    let stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    let mut builder = client::Builder::new();
    builder.initial_window_size(WINDOW).initial_connection_window_size(WINDOW);
    let (send, connection) = builder.handshake(stream).await?;
    tokio::spawn(async move {
        if let Err(error) = connection.await {
            crate::report::report_progress(&format!("bench: the connection to etcd ended: {error}"));
        }
    });
    Ok(send)
}

/// Reads the answer's only message, and checks the status that follows it.
async fn read_message(mut body: RecvStream) -> Result<Bytes, BenchError> {
    let mut message = BytesMut::new();
    while let Some(part) = body.data().await {
        let part = part?;
        body.flow_control().release_capacity(part.len())?;
        message.extend_from_slice(&part);
    }
    let trailers = body.trailers().await?.unwrap_or_default();
    let status = trailers.get("grpc-status").map_or("none", |status| status.to_str().unwrap_or("malformed"));
    if status != "0" {
        return Err(format!("etcd answers with gRPC status {status}").into());
    }
    if message.len() < PREFIX {
        return Err("etcd answers with no message".into());
    }
    Ok(message.freeze().slice(PREFIX..))
}

/// Bytes before each message of gRPC: whether it is compressed, and its length in four bytes.
const PREFIX: usize = 5;

fn grpc_message(message: &[u8]) -> Bytes {
    let mut framed = BytesMut::with_capacity(PREFIX + message.len());
    framed.put_u8(0);
    framed.put_u32(u32::try_from(message.len()).unwrap_or(u32::MAX));
    framed.put_slice(message);
    framed.freeze()
}

/// `TxnRequest`: if `key` was never modified (`mod_revision` is 0), put it.
fn create_transaction(key: &[u8], value: &[u8]) -> Vec<u8> {
    // `Compare`: result = EQUAL and mod_revision = 0 are the defaults, but one of the union must be present.
    let mut compare = Vec::new();
    number(&mut compare, 2, 2); // target = MOD
    bytes(&mut compare, 3, key);
    number(&mut compare, 6, 0); // mod_revision
    let mut put = Vec::new();
    bytes(&mut put, 1, key);
    bytes(&mut put, 2, value);
    let mut operation = Vec::new();
    bytes(&mut operation, 2, &put); // `RequestOp.request_put`
    let mut transaction = Vec::new();
    bytes(&mut transaction, 1, &compare);
    bytes(&mut transaction, 2, &operation); // on success
    transaction
}

/// Reads `TxnResponse.succeeded` (field 2): false if it is absent.
fn succeeded(mut message: &[u8]) -> bool {
    while let Some((tag, rest)) = read_varint(message) {
        let Some((value, rest)) = read_varint(rest) else { return false };
        match tag {
            0x10 => return value == 1,
            // Fields with a length: the header and the responses.
            0x0a | 0x1a => {
                let length = usize::try_from(value).unwrap_or(usize::MAX);
                let Some(rest) = rest.get(length..) else { return false };
                message = rest;
            }
            _ => return false,
        }
    }
    false
}

/// Appends a field of protobuf's wire type 0.
fn number(message: &mut Vec<u8>, field: u8, value: u64) {
    message.push(field << 3);
    varint(message, value);
}

/// Appends a field of protobuf's wire type 2.
fn bytes(message: &mut Vec<u8>, field: u8, value: &[u8]) {
    message.push(field << 3 | 2);
    varint(message, value.len() as u64);
    message.extend_from_slice(value);
}

fn varint(message: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        message.push((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    message.push((value & 0x7f) as u8);
}

fn read_varint(message: &[u8]) -> Option<(u64, &[u8])> {
    let mut value = 0;
    for (index, byte) in message.iter().enumerate().take(10) {
        value |= u64::from(byte & 0x7f) << (7 * index);
        if byte & 0x80 == 0 {
            return Some((value, message.get(index + 1..)?));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn encodes_a_transaction() {
        let expected = [
            0x0a, 7, 0x10, 2, 0x1a, 1, b'k', 0x30, 0, // compare
            0x12, 8, 0x12, 6, 0x0a, 1, b'k', 0x12, 1, b'v', // put
        ];
        assert_eq!(create_transaction(b"k", b"v"), expected);
        assert_eq!(grpc_message(b"ab").as_ref(), [0, 0, 0, 0, 2, b'a', b'b']);
        let long = create_transaction(b"k", &[0; VALUE]);
        assert_eq!(long.len(), 9 + 3 + 3 + 3 + 3 + VALUE);
    }

    #[test]
    fn reads_whether_a_transaction_succeeded() {
        assert!(succeeded(&[0x0a, 2, 0x18, 9, 0x10, 1, 0x1a, 0]));
        assert!(!succeeded(&[0x0a, 2, 0x18, 9]));
        assert!(!succeeded(&[0x0a, 200]));
        assert_eq!(read_varint(&[0xac, 0x02, 7]), Some((300, [7].as_slice())));
    }
}
