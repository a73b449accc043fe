//! The task that keeps a connection: connects, reads and writes, and connects again when the connection is lost.

use std::convert::Infallible;
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
use tokio::net::lookup_host;
use tokio::sync::oneshot;
use tokio::task::yield_now;
use tokio::time::{Instant, MissedTickBehavior, interval_at, sleep, timeout};

use super::address::{AddressError, ServerAddress};
use super::client::Shared;
use super::failure::ConnectFailure;
use super::handshake::{Link, READ, Reader, Writer, connect, refusal};
use super::link_state::StateLog;
use super::protocol::{Parser, ServerOp};
use crate::credentials::{Credentials, CredentialsSource};
use crate::tls::TrustedCa;

/// Delays between attempts to connect.
const RECONNECT_MIN: Duration = Duration::from_millis(2);
const RECONNECT_MAX: Duration = Duration::from_millis(500);

/// The same after the server has refused the user, is not trusted, or has ended a new connection: whatever the cause
/// is, somebody has to remove it.
const REFUSED_MIN: Duration = Duration::from_millis(250);
const REFUSED_MAX: Duration = Duration::from_secs(30);

/// A connection that lasted as long ends a series of failures.
const STABLE: Duration = Duration::from_secs(1);

/// How long one attempt with one address of one server may take: the next one may answer.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);

/// How often an idle connection is checked. After two unanswered pings it is closed: a service that was cut off
/// reconnects about a second after the network's recovery, whereas TCP would wait as long again as the interruption
/// lasted.
const PING: Duration = Duration::from_secs(1);
const UNANSWERED_MAX: u32 = 2;

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
    pub(super) credentials: Arc<dyn CredentialsSource>,
    /// Plain text, and servers without a certificate of this CA, are refused.
    pub(super) ca: Option<TrustedCa>,
    pub(super) name: String,
    pub(super) lifetime: Lifetime,
    pub(super) runtime: Arc<dyn Runtime>,
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
            let credentials = settings.credentials.current();
            shared.connecting_as(&credentials);
            let connecting = connect_any(&settings, &credentials);
            let connected = timeout(limit, connecting).await.unwrap_or(Err(ConnectFailure::TimedOut(limit)));
            match connected {
                Ok(link) => {
                    let established = || report(Ok(()));
                    let served = Served { settings: &settings, credentials: &credentials, shared: &shared };
                    let Err(error) = served.serve(link, false, established).await;
                    note_refusal(&error, &shared);
                    tracing::debug!(error = %Causes(&error), "the connection to NATS was lost");
                }
                Err(error) => report(Err(error)),
            }
        }
        Lifetime::Lasting => match keep(&settings, &shared, &mut report).await {},
    }
    shared.close();
}

/// Connects, and again whenever there is no connection.
async fn keep(
    settings: &LinkSettings,
    shared: &Shared,
    report: &mut impl FnMut(Result<(), ConnectFailure>),
) -> Infallible {
    let runtime = settings.runtime.as_ref();
    let mut unreachable = Backoff::new(RECONNECT_MIN, RECONNECT_MAX, runtime);
    let mut refused = Backoff::new(REFUSED_MIN, REFUSED_MAX, runtime);
    let mut log = StateLog::new(&settings.name);
    loop {
        let mut connected_at = None;
        let credentials = settings.credentials.current();
        shared.connecting_as(&credentials);
        let error = match connect_any(settings, &credentials).await {
            Ok(link) => {
                log.connected(link.peer);
                settings.credentials.accepted(&credentials);
                let established = || {
                    connected_at = Some(Instant::now());
                    report(Ok(()));
                };
                let served = Served { settings, credentials: &credentials, shared };
                let Err(error) = served.serve(link, true, established).await;
                error
            }
            Err(error) => error,
        };
        shared.lost();
        if matches!(error, ConnectFailure::Replaced) {
            log.replaced();
            continue;
        }
        if matches!(error, ConnectFailure::Credentials(_)) {
            settings.credentials.refused(&credentials);
        }
        log.failed(&error);
        note_refusal(&error, shared);
        let lasted = connected_at.map(|at: Instant| at.elapsed());
        if lasted.is_some_and(|lasted| lasted >= STABLE) {
            unreachable.reset();
            refused.reset();
        }
        let is_cut = lasted.is_some_and(|lasted| lasted < STABLE);
        let backoff = if error.is_refusal() || is_cut { &mut refused } else { &mut unreachable };
        sleep(backoff.next_delay()).await;
    }
}

/// Requests fail at once while the server refuses the user.
fn note_refusal(error: &ConnectFailure, shared: &Shared) {
    let refusal = match error {
        ConnectFailure::Credentials(refusal) => Some(refusal.clone()),
        ConnectFailure::Address(_)
        | ConnectFailure::Connect { .. }
        | ConnectFailure::TimedOut(_)
        | ConnectFailure::Closed
        | ConnectFailure::Io(_)
        | ConnectFailure::Protocol(_)
        | ConnectFailure::Tls(_)
        | ConnectFailure::Refused(_)
        | ConnectFailure::Unanswered
        | ConnectFailure::Replaced => None,
    };
    shared.refused(refusal);
}

/// Connects to the first server that accepts the connection. A name may have several addresses.
async fn connect_any(settings: &LinkSettings, credentials: &Credentials) -> Result<Link, ConnectFailure> {
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
            match within(CONNECT_TIMEOUT, connect(address, peer, settings, credentials)).await {
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

/// A connection that is served.
struct Served<'a> {
    settings: &'a LinkSettings,
    /// Those that the server has accepted.
    credentials: &'a Credentials,
    shared: &'a Shared,
}

impl Served<'_> {
    /// Serves the connection until it is lost.
    async fn serve(&self, link: Link, checked: bool, established: impl FnOnce()) -> Result<Infallible, ConnectFailure> {
        let Link { reader, mut writer, parser, arrived, info, peer } = link;
        writer.write_all(&self.shared.connected(info.max_payload)).await?;
        writer.flush().await?;
        self.shared.established(peer);
        established();
        let unanswered = AtomicU32::new(0);
        let (never, _) = try_join(
            self.read((reader, parser, arrived), &unanswered),
            self.write(writer, checked.then_some(&unanswered)),
        )
        .await?;
        Ok(never)
    }

    async fn read(
        &self,
        (mut reader, mut parser, mut arrived): (Reader, Parser, BytesMut),
        unanswered: &AtomicU32,
    ) -> Result<Infallible, ConnectFailure> {
        let Self { settings, credentials, shared } = self;
        // What the server said last before it closes the connection is the reason.
        let mut last_error = None;
        loop {
            while let Some(op) = parser.next(&mut arrived)? {
                last_error = None;
                match op {
                    ServerOp::Message(message) => shared.deliver(message),
                    ServerOp::Ping => shared.write_control(b"PONG\r\n"),
                    ServerOp::Pong => unanswered.store(0, Ordering::Relaxed),
                    ServerOp::Error(text) => {
                        let is_violation = shared.reported(&text);
                        last_error = (!is_violation).then_some(text);
                    }
                    ServerOp::Info(_) | ServerOp::Ok => {}
                }
            }
            // While more has arrived already, whoever processes it gets its turn.
            yield_now().await;
            arrived.reserve(READ);
            let closed = match reader.read_buf(&mut arrived).await {
                Ok(0) => ConnectFailure::Closed,
                Ok(_) => continue,
                Err(error) => error.into(),
            };
            return Err(last_error.map_or(closed, |text| refusal(text, settings, credentials)));
        }
    }

    /// Writes what is published. If the connection is to be `checked`, pings the server, and ends the connection when
    /// other credentials are to be used.
    async fn write(&self, mut writer: Writer, checked: Option<&AtomicU32>) -> Result<Infallible, ConnectFailure> {
        let Self { settings, credentials, shared } = self;
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
                        if !settings.credentials.current().is_same(credentials) {
                            return Err(ConnectFailure::Replaced);
                        }
                        shared.write_control(b"PING\r\n");
                    }
                }
                continue;
            }
            writer.write_all(&batch).await?;
            writer.flush().await?;
            batch.clear();
            batch.shrink_to(KEPT);
            spare = batch;
        }
    }
}
