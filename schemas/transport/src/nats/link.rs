//! The task that keeps a connection: connects, reads and writes, and connects again when the connection is lost.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use bytes::BytesMut;
use futures::future::try_join;
use otherix_runtime::{Backoff, Runtime};
use otherix_schemas::error::Causes;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpStream, lookup_host};
use tokio::sync::oneshot;
use tokio::task::yield_now;
use tokio::time::{Instant, MissedTickBehavior, interval_at, sleep, timeout};

use super::address::{AddressError, ServerAddress};
use super::client::Shared;
use super::protocol::{Connect, Parser, ProtocolError, ServerInfo, ServerOp};
use crate::credentials::Credentials;

/// Delays between attempts to connect.
const RECONNECT_MIN: Duration = Duration::from_millis(2);
const RECONNECT_MAX: Duration = Duration::from_millis(500);

/// How long one attempt with one address of one server may take: the next one may answer.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);

/// How often an idle connection is checked. After two unanswered pings it is closed: a service that was cut off
/// reconnects about a second after the network's recovery, whereas TCP would wait as long again as the interruption
/// lasted.
const PING: Duration = Duration::from_secs(1);
const UNANSWERED_MAX: u32 = 2;

/// Bytes that are read at once.
const READ: usize = 64 * 1024;

/// Bytes of an idle buffer that are kept for the next batch of messages.
const KEPT: usize = 256 * 1024;

/// Whether a connection that is lost is established again.
#[derive(Clone, Copy, Debug)]
pub(super) enum Lifetime {
    /// One connection, which must be established within this time.
    Once(Duration),
    /// Connects again until it is dropped.
    Lasting,
}

/// Where to connect, and how.
pub(super) struct LinkSettings {
    pub(super) addresses: Vec<ServerAddress>,
    pub(super) credentials: Credentials,
    pub(super) name: String,
    pub(super) lifetime: Lifetime,
    pub(super) runtime: Arc<dyn Runtime>,
}

/// Why a server cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConnectFailure {
    #[error("the address is malformed")]
    Address(#[from] AddressError),
    #[error("cannot connect to `{address}`")]
    Connect { address: ServerAddress, source: io::Error },
    #[error("no answer within {} ms", .0.as_millis())]
    TimedOut(Duration),
    #[error("the server closed the connection")]
    Closed,
    #[error("the connection failed")]
    Io(#[from] io::Error),
    #[error("the server does not speak the NATS protocol")]
    Protocol(#[from] ProtocolError),
    #[error("the server requires TLS")]
    TlsRequired,
    /// The credentials are not those of a user.
    #[error("the server refuses the credentials: {0}")]
    Credentials(String),
    #[error("the server refuses the connection: {0}")]
    Refused(String),
    #[error("two pings were not answered")]
    Unanswered,
}

/// A connection that the server has accepted.
struct Link {
    reader: OwnedReadHalf,
    writer: OwnedWriteHalf,
    parser: Parser,
    /// What has arrived and is not parsed yet.
    arrived: BytesMut,
    info: ServerInfo,
    peer: SocketAddr,
}

/// Keeps the connection. `first` receives the result of the first attempt.
pub(super) async fn run(
    settings: LinkSettings,
    shared: Arc<Shared>,
    first: oneshot::Sender<Result<(), ConnectFailure>>,
) {
    let mut first = Some(first);
    let mut report = |result| {
        if let Some(first) = first.take() {
            // Whoever started it may be gone.
            let _unless_dropped = first.send(result);
        }
    };
    match settings.lifetime {
        Lifetime::Once(limit) => {
            let connected =
                timeout(limit, connect_any(&settings)).await.unwrap_or(Err(ConnectFailure::TimedOut(limit)));
            match connected {
                Ok(link) => {
                    let established = || report(Ok(()));
                    let Err(error) = serve(link, &shared, false, established).await;
                    tracing::debug!(error = %Causes(&error), "the connection to NATS was lost");
                }
                Err(error) => report(Err(error)),
            }
        }
        Lifetime::Lasting => {
            let mut backoff = Backoff::new(RECONNECT_MIN, RECONNECT_MAX, settings.runtime.as_ref());
            loop {
                let error = match connect_any(&settings).await {
                    Ok(link) => {
                        let established = || {
                            backoff.reset();
                            report(Ok(()));
                        };
                        let Err(error) = serve(link, &shared, true, established).await;
                        error
                    }
                    Err(error) => error,
                };
                shared.lost();
                tracing::debug!(error = %Causes(&error), "there is no connection to NATS");
                sleep(backoff.next_delay()).await;
            }
        }
    }
    shared.close();
}

/// Connects to the first server that accepts the connection. A name may have several addresses.
async fn connect_any(settings: &LinkSettings) -> Result<Link, ConnectFailure> {
    let mut failure = ConnectFailure::Address(AddressError::Empty);
    for address in &settings.addresses {
        let resolved = match resolve(address).await {
            Ok(resolved) => resolved,
            Err(error) => {
                failure = error;
                continue;
            }
        };
        for peer in resolved {
            match within(CONNECT_TIMEOUT, connect(address, peer, settings)).await {
                Ok(link) => return Ok(link),
                // Another server would refuse them as well, or its refusal would hide this one.
                Err(error @ ConnectFailure::Credentials(_)) => return Err(error),
                Err(error) => failure = error,
            }
        }
    }
    Err(failure)
}

async fn resolve(address: &ServerAddress) -> Result<Vec<SocketAddr>, ConnectFailure> {
    let failed = |source| ConnectFailure::Connect { address: address.clone(), source };
    let resolved = async {
        let found: Vec<_> = lookup_host((address.host.as_str(), address.port)).await.map_err(failed)?.collect();
        let none = || failed(io::Error::new(io::ErrorKind::NotFound, "the name has no address"));
        if found.is_empty() { Err(none()) } else { Ok(found) }
    };
    within(CONNECT_TIMEOUT, resolved).await
}

async fn within<T>(
    limit: Duration,
    attempt: impl Future<Output = Result<T, ConnectFailure>>,
) -> Result<T, ConnectFailure> {
    timeout(limit, attempt).await.unwrap_or(Err(ConnectFailure::TimedOut(limit)))
}

async fn connect(address: &ServerAddress, peer: SocketAddr, settings: &LinkSettings) -> Result<Link, ConnectFailure> {
    let stream = TcpStream::connect(peer)
        .await
        .map_err(|source| ConnectFailure::Connect { address: address.clone(), source })?;
    stream.set_nodelay(true)?;
    let (reader, writer) = stream.into_split();
    let (parser, arrived) = (Parser::default(), BytesMut::with_capacity(READ));
    let mut link = Link { reader, writer, parser, arrived, info: ServerInfo::default(), peer };
    match link.receive().await? {
        ServerOp::Info(info) => link.info = *info,
        ServerOp::Error(text) => return Err(ConnectFailure::Refused(text)),
        ServerOp::Message(_) | ServerOp::Ping | ServerOp::Pong | ServerOp::Ok => return Err(ProtocolError::Info.into()),
    }
    if link.info.tls_required {
        return Err(ConnectFailure::TlsRequired);
    }
    let Credentials { user, password } = &settings.credentials;
    let connect = Connect {
        verbose: false,
        pedantic: false,
        user: user.as_str(),
        pass: password,
        name: &settings.name,
        lang: "otherix",
        version: env!("CARGO_PKG_VERSION"),
        // Later INFO messages may arrive.
        protocol: 1,
        headers: true,
        no_responders: true,
    };
    let connect = serde_json::to_string(&connect).map_err(io::Error::from)?;
    link.writer.write_all(format!("CONNECT {connect}\r\nPING\r\n").as_bytes()).await?;
    loop {
        match link.receive().await? {
            ServerOp::Pong => return Ok(link),
            ServerOp::Error(text) if is_about_credentials(&text) => return Err(ConnectFailure::Credentials(text)),
            ServerOp::Error(text) => return Err(ConnectFailure::Refused(text)),
            ServerOp::Ping => link.writer.write_all(b"PONG\r\n").await?,
            ServerOp::Info(_) | ServerOp::Ok | ServerOp::Message(_) => {}
        }
    }
}

fn is_about_credentials(error: &str) -> bool {
    let error = error.to_ascii_lowercase();
    error.contains("authorization") || error.contains("authentication")
}

impl Link {
    /// Reads until the next operation is complete.
    async fn receive(&mut self) -> Result<ServerOp, ConnectFailure> {
        loop {
            if let Some(op) = self.parser.next(&mut self.arrived)? {
                return Ok(op);
            }
            if self.reader.read_buf(&mut self.arrived).await? == 0 {
                return Err(ConnectFailure::Closed);
            }
        }
    }
}

/// Serves the connection until it is lost.
async fn serve(
    link: Link,
    shared: &Shared,
    checked: bool,
    established: impl FnOnce(),
) -> Result<std::convert::Infallible, ConnectFailure> {
    let Link { reader, mut writer, parser, arrived, info, peer } = link;
    writer.write_all(&shared.connected(info.max_payload)).await?;
    shared.established(peer);
    established();
    let unanswered = AtomicU32::new(0);
    let (never, _) = try_join(
        read((reader, parser, arrived), shared, &unanswered),
        write(writer, shared, checked.then_some(&unanswered)),
    )
    .await?;
    Ok(never)
}

async fn read(
    (mut reader, mut parser, mut arrived): (OwnedReadHalf, Parser, BytesMut),
    shared: &Shared,
    unanswered: &AtomicU32,
) -> Result<std::convert::Infallible, ConnectFailure> {
    loop {
        while let Some(op) = parser.next(&mut arrived)? {
            match op {
                ServerOp::Message(message) => shared.deliver(message),
                ServerOp::Ping => shared.write_control(b"PONG\r\n"),
                ServerOp::Pong => unanswered.store(0, Ordering::Relaxed),
                ServerOp::Error(text) => shared.reported(&text),
                ServerOp::Info(_) | ServerOp::Ok => {}
            }
        }
        // While more has arrived already, whoever processes it gets its turn.
        yield_now().await;
        arrived.reserve(READ);
        if reader.read_buf(&mut arrived).await? == 0 {
            return Err(ConnectFailure::Closed);
        }
    }
}

/// Writes what is published, and pings the server if the connection is to be `checked`.
async fn write(
    mut writer: OwnedWriteHalf,
    shared: &Shared,
    checked: Option<&AtomicU32>,
) -> Result<std::convert::Infallible, ConnectFailure> {
    let mut pings = interval_at(Instant::now() + PING, PING);
    pings.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut spare = Vec::new();
    loop {
        let mut batch = shared.take_out(std::mem::take(&mut spare));
        if batch.is_empty() {
            spare = batch;
            tokio::select! {
                () = shared.written.notified() => {}
                _ = pings.tick(), if checked.is_some() => {
                    if checked.is_some_and(|count| count.fetch_add(1, Ordering::Relaxed) >= UNANSWERED_MAX) {
                        return Err(ConnectFailure::Unanswered);
                    }
                    shared.write_control(b"PING\r\n");
                }
            }
            continue;
        }
        writer.write_all(&batch).await?;
        batch.clear();
        batch.shrink_to(KEPT);
        spare = batch;
    }
}
