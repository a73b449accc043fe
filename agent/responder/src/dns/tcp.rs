//! Questions over TCP, where the node's kernel has the gateway's address.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use otherix_runtime::{LogLimit, Runtime, TaskSet};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::time::{sleep, timeout};

use super::client::{Client, Used};
use super::message::Rcode;
use super::relay::{Relayed, Transport};
use super::zone::{Decision, Zone};
use crate::frame::DNS;

/// The most connections of a guest.
const CONNECTIONS: usize = 8;

/// How long a guest may leave a connection unused, and how long a message may take in either direction.
const IDLE: Duration = Duration::from_secs(10);

/// How long until a socket is opened again that could not be: its bridge may have no address yet.
const RETRY: Duration = Duration::from_secs(2);

/// How long a socket rests after an error.
const REST: Duration = Duration::from_millis(100);

/// Connections that wait to be accepted.
const BACKLOG: u32 = 128;

/// The gateway of a network, on whose bridge it has its address.
#[derive(Clone, Debug)]
pub struct Gateway {
    pub address: Ipv4Addr,
    pub zone: Arc<Zone>,
}

impl PartialEq for Gateway {
    fn eq(&self, other: &Self) -> bool {
        self.address == other.address && Arc::ptr_eq(&self.zone, &other.zone)
    }
}

impl Eq for Gateway {}

/// Answers what arrives on a device for the gateway's address.
pub(crate) async fn serve(runtime: Arc<dyn Runtime>, device: String, gateway: Gateway) {
    let listener = loop {
        match listen(&device, gateway.address) {
            Ok(listener) => break listener,
            Err(error) => log_failure(&device, gateway.address, &error),
        }
        sleep(RETRY).await;
    };
    let mut connections = TaskSet::default();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            Some(_) = connections.join_next() => continue,
        };
        let Ok((stream, SocketAddr::V4(peer))) = accepted else {
            // The client has given up, or there are too many files open.
            sleep(REST).await;
            continue;
        };
        let client = gateway.zone.client(*peer.ip());
        if let Some(client) = client
            && let Some(used) = client.connections.take(CONNECTIONS)
        {
            let connection = Connection { stream, zone: Arc::clone(&gateway.zone), client, _used: used };
            connections.add(runtime.spawn("answer a connection", connection.serve()));
        }
    }
}

fn listen(device: &str, address: Ipv4Addr) -> io::Result<TcpListener> {
    let socket = TcpSocket::new_v4()?;
    socket.set_reuseaddr(true)?;
    socket.bind_device(Some(device.as_bytes()))?;
    socket.bind((address, DNS).into())?;
    socket.listen(BACKLOG)
}

fn log_failure(device: &str, address: Ipv4Addr, error: &io::Error) {
    static IN_USE: LogLimit = LogLimit::new();
    static FAILED: LogLimit = LogLimit::new();
    let is_early = error.raw_os_error() == Some(libc::ENODEV) || error.kind() == io::ErrorKind::AddrNotAvailable;
    if error.kind() == io::ErrorKind::AddrInUse {
        if let Some(hits) = IN_USE.hit() {
            tracing::warn!(
                device, %address, hits,
                hint = "let the program that listens on port 53 of all addresses listen on its own only; \
                        `ss -ltnp sport = :53` shows it",
                "cannot answer DNS over TCP, as another program has the port: guests resolve names over UDP only"
            );
        }
    } else if !is_early && let Some(hits) = FAILED.hit() {
        tracing::error!(device, %address, %error, hits, "cannot answer DNS over TCP");
    }
}

/// A connection of a guest.
struct Connection {
    stream: TcpStream,
    zone: Arc<Zone>,
    client: Arc<Client>,
    _used: Used,
}

impl Connection {
    /// Answers one question after the other until the guest closes the connection, or does nothing for too long.
    async fn serve(mut self) {
        while let Ok(Ok(question)) = timeout(IDLE, read(&mut self.stream)).await {
            let Some(mut answer) = self.answer(&question).await else { return };
            let Ok(length) = u16::try_from(answer.len()) else { return };
            // In one segment.
            answer.splice(..0, length.to_be_bytes());
            if !matches!(timeout(IDLE, self.stream.write_all(&answer)).await, Ok(Ok(()))) {
                return;
            }
            sleep(self.client.count()).await;
        }
    }

    async fn answer(&self, question: &[u8]) -> Option<Vec<u8>> {
        match self.zone.decide(question) {
            Decision::Ignore => None,
            Decision::Answer(answer) => Some(answer),
            Decision::Relay(query, relay) => {
                let failed = query.error(Rcode::ServFail);
                let Some(_permit) = relay.permit(&self.client) else { return Some(failed) };
                let relayed = Relayed { message: query.bytes().to_vec(), question: query.question().to_vec() };
                Some(relay.ask(&relayed, Transport::Tcp).await.unwrap_or(failed))
            }
        }
    }
}

/// Reads a message, of which as much is kept in memory as has arrived.
async fn read(stream: &mut TcpStream) -> io::Result<Vec<u8>> {
    let length = stream.read_u16().await?;
    let mut message = Vec::new();
    stream.take(length.into()).read_to_end(&mut message).await?;
    if message.len() == usize::from(length) { Ok(message) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
}
