//! Supervises one `nats-server`: starts it, waits until it accepts clients, restarts it when it ends, stops it. While
//! the file `hold` exists it is not started.
//!
//! Cancel-safety: [`NatsSupervisor::run`] may be dropped at any await and called again; a server that is starting
//! continues, and the next call waits for it. Dropping the supervisor kills the server.

use std::convert::Infallible;
use std::fs::{self, File};
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use otherix_runtime::{Backoff, SystemRuntime};
use otherix_transport::{Credentials, NatsEndpoint};
use rustix::process::Signal;
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, sleep, sleep_until, timeout, timeout_at};

use super::accounts::{AccountName, Revocations};
use super::config::{AccountInputs, NatsFolder, render};
use super::error::NatsError;
use super::files::{private_folder, write_private};
use super::identity::Identity;
use super::lock::lock_store;
use super::process::NatsProcess;
use super::program;
use super::readiness::{last_error, wait_ready};
use super::refusals::LogPosition;
use super::server::{AccountAuthority, NatsAccess};
use super::tls::{ServerTls, TlsSettings, local_host};
use super::unix_now;
use super::users::ControlPlaneUsers;

/// Time-out for the server to accept clients: it reads its store first.
const READY_TIMEOUT: Duration = Duration::from_secs(60);
/// Time-out for the server to end after SIGTERM.
const END_TIMEOUT: Duration = Duration::from_secs(10);
/// First delay between restarts; the very first restart, and the first after a long uptime, is immediate.
const PAUSE_MIN: Duration = Duration::from_millis(100);
/// Longest delay between restarts.
const PAUSE_MAX: Duration = Duration::from_secs(1);
/// After this uptime the next restart is immediate again.
const STABLE_UPTIME: Duration = Duration::from_secs(10);
/// Interval of checks for the file `hold` while it exists.
const HOLD_POLL: Duration = Duration::from_millis(250);

/// Settings of the supervised server.
#[derive(Clone, Debug)]
pub(crate) struct NatsSettings {
    /// State folder of the control plane.
    pub(crate) state: PathBuf,
    /// Address for clients; port 0 chooses a free port at the first start, which is then kept.
    pub(crate) listen: SocketAddr,
    /// The `nats-server` to run; otherwise the one of the environment or of PATH.
    pub(crate) server: Option<PathBuf>,
    pub(crate) tls: TlsSettings,
    /// Whose credentials the server refuses, whenever it is started.
    pub(crate) revoked: watch::Receiver<Revocations>,
}

/// A supervised server.
pub(crate) struct NatsSupervisor {
    folder: NatsFolder,
    program: PathBuf,
    listen: SocketAddr,
    identity: Arc<Identity>,
    users: ControlPlaneUsers,
    revoked: watch::Receiver<Revocations>,
    /// The end of the log before the first start.
    log_begin: LogPosition,
    tls: Option<ServerTls>,
    phase: ServerPhase,
    restart: Arc<Notify>,
    lock: File, // dropped after the child, whose store it protects
}

enum ServerPhase {
    /// Started; does not accept clients yet.
    Starting { child: NatsProcess, ready_by: Instant },
    /// Accepts clients.
    Up { child: NatsProcess, since: Instant },
    /// Ended; to be restarted at the given time.
    Down { start_at: Instant },
}

/// Attempts at the first start before an early end of the server is returned as an error.
const START_ATTEMPTS: u32 = 3;

impl NatsSupervisor {
    /// Creates missing files in the state folder, starts the server and returns when it accepts clients. Waits while
    /// the file `hold` exists.
    pub(crate) async fn start(settings: NatsSettings) -> Result<Self, NatsError> {
        let NatsSettings { state, listen, server, tls, revoked } = settings;
        let program = program::find(server.as_deref())?;
        program::check_version(&program)?;
        let folder = NatsFolder::of(&state)?;
        private_folder(&state)?;
        private_folder(folder.path())?;
        let lock = lock_store(&folder).await?;
        let now = unix_now()?;
        let identity = Arc::new(Identity::load_or_create(&state, now)?);
        let tls = ServerTls::prepare(&state, listen.ip(), &tls)?;
        take_over_streams(&folder, &identity)?;
        let users = ControlPlaneUsers::generate(&identity, now)?;
        let (phase, restart) = (ServerPhase::Down { start_at: Instant::now() }, Arc::default());
        let log_begin = LogPosition::end_of(&folder.log());
        let mut supervisor =
            Self { folder, program, listen, identity, users, revoked, log_begin, tls, phase, restart, lock };
        let mut attempts_left = START_ATTEMPTS;
        loop {
            supervisor.wait_while_held().await;
            supervisor.launch()?;
            attempts_left -= 1;
            match supervisor.await_ready().await {
                // Another process may have killed it.
                Err(error @ NatsError::Ended { .. }) if attempts_left > 0 => {
                    tracing::warn!(%error, "starting it again")
                }
                result => return result.map(|()| supervisor),
            }
        }
    }

    /// How the control plane connects to the server.
    pub(crate) fn access(&self) -> NatsAccess {
        let ControlPlaneUsers { claims, relay, people, nodes, mirror, state, state_mirrors } = &self.users;
        let claims = claims.as_ref().map(|claims| self.endpoint(claims));
        NatsAccess {
            url: self.url(),
            claims,
            relay: self.endpoint(relay),
            people: self.endpoint(people),
            nodes: self.endpoint(nodes),
            mirror: self.endpoint(mirror),
            state: self.endpoint(state),
            state_mirrors: self.endpoint(state_mirrors),
            identity: Arc::clone(&self.identity),
            accounts: AccountAuthority::Embedded,
            replicas: None,
            log: Some((self.folder.log(), self.log_begin)),
            restart: Some(Arc::clone(&self.restart)),
        }
    }

    pub(super) fn endpoint(&self, credentials: &Credentials) -> NatsEndpoint {
        let ca = self.tls.as_ref().map(|tls| tls.ca.clone());
        NatsEndpoint::new(self.url(), credentials.clone()).with_ca(ca)
    }

    pub(super) fn url(&self) -> String {
        format!("nats://{}", SocketAddr::new(local_host(self.listen.ip()), self.listen.port()))
    }

    /// Supervises the server until the future is dropped.
    pub(crate) async fn run(&mut self) -> Infallible {
        let mut backoff = Backoff::new(PAUSE_MIN, PAUSE_MAX, &SystemRuntime);
        let mut is_first = true; // since the last long uptime
        loop {
            match &mut self.phase {
                ServerPhase::Up { child, since } => {
                    let status = tokio::select! {
                        status = child.wait() => status.to_owned(),
                        () = self.restart.notified() => end(child).await,
                    };
                    tracing::warn!(status, log = %self.folder.log().display(), "nats-server has ended");
                    if since.elapsed() >= STABLE_UPTIME {
                        backoff.reset();
                        is_first = true;
                    }
                    let pause = if is_first { Duration::ZERO } else { backoff.next_delay() };
                    is_first = false;
                    self.phase = ServerPhase::Down { start_at: Instant::now() + pause };
                }
                ServerPhase::Starting { .. } => match self.await_ready().await {
                    Ok(()) => tracing::info!(url = self.url(), "nats-server accepts clients again"),
                    Err(error) => self.retry_later(&error, &mut backoff),
                },
                ServerPhase::Down { start_at } => {
                    let start_at = *start_at;
                    sleep_until(start_at).await;
                    self.wait_while_held().await;
                    if let Err(error) = self.launch() {
                        self.retry_later(&error, &mut backoff);
                    }
                }
            }
        }
    }

    /// Schedules another attempt after a failed start.
    fn retry_later(&mut self, error: &NatsError, backoff: &mut Backoff) {
        let pause = backoff.next_delay();
        tracing::error!(%error, pause_ms = pause.as_millis(), "nats-server could not be started");
        self.phase = ServerPhase::Down { start_at: Instant::now() + pause };
    }

    /// Stops the server; returns when it has ended.
    pub(crate) async fn stop(mut self) {
        let (ServerPhase::Up { child, .. } | ServerPhase::Starting { child, .. }) = &mut self.phase else {
            return;
        };
        end(child).await;
    }

    async fn wait_while_held(&self) {
        let hold = self.folder.hold();
        if !hold.exists() {
            return;
        }
        tracing::warn!(hold = %hold.display(), "nats-server is not started while this file exists");
        while hold.exists() {
            sleep(HOLD_POLL).await;
        }
    }

    /// Starts the server.
    fn launch(&mut self) -> Result<(), NatsError> {
        self.clear_ports()?;
        self.clear_accounts()?;
        let revoked = self.revoked.borrow().clone();
        let accounts = AccountInputs { identity: &self.identity, revoked: &revoked, now: unix_now()? };
        let text = format!("{:#}\n", render(&self.folder, self.listen, accounts, self.tls.as_ref())?);
        write_private(&self.folder.config(), text.as_bytes())?;
        let stderr = self.folder.stderr();
        let stderr =
            File::create(&stderr).map_err(|source| NatsError::File { attempt: "write", path: stderr, source })?;
        let mut command = Command::new(&self.program);
        command.arg("-c").arg(self.folder.config());
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(stderr);
        let child = NatsProcess::spawn(command, &self.lock)
            .map_err(|source| NatsError::Run { program: self.program.clone(), source })?;
        self.phase = ServerPhase::Starting { child, ready_by: Instant::now() + READY_TIMEOUT };
        Ok(())
    }

    /// Waits until a started server accepts clients. If this fails, the server has ended.
    async fn await_ready(&mut self) -> Result<(), NatsError> {
        let ServerPhase::Starting { child, ready_by } = &mut self.phase else {
            return Ok(());
        };
        let pid = child.pid();
        let ready = tokio::select! {
            ready = timeout_at(*ready_by, wait_ready(&self.folder, pid)) => ready,
            status = child.wait() => return Err(NatsError::Ended {
                status: status.to_owned(),
                reason: last_error(&self.folder),
                log: self.folder.log(),
            }),
        };
        let Ok(port) = ready else {
            child.signal(Signal::KILL);
            child.wait().await;
            return Err(NatsError::NotReady { waited: READY_TIMEOUT, log: self.folder.log() });
        };
        self.listen.set_port(port);
        tracing::debug!(pid, port, "nats-server accepts clients");
        let started = std::mem::replace(&mut self.phase, ServerPhase::Down { start_at: Instant::now() });
        if let ServerPhase::Starting { child, .. } = started {
            self.phase = ServerPhase::Up { child, since: Instant::now() };
        }
        Ok(())
    }

    /// Removes the server's copies of the accounts, so that it has those of the configuration, whatever the clock was.
    fn clear_accounts(&self) -> Result<(), NatsError> {
        let path = self.folder.accounts();
        match fs::remove_dir_all(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(NatsError::File { attempt: "clean up", path, source: error })
            }
            Ok(()) | Err(_) => Ok(()),
        }
    }

    /// Removes port files of killed servers, because process ids are reused.
    fn clear_ports(&self) -> Result<(), NatsError> {
        let failed = |source| NatsError::File { attempt: "clean up", path: self.folder.path().to_owned(), source };
        for entry in fs::read_dir(self.folder.path()).map_err(failed)? {
            let path = entry.map_err(failed)?.path();
            if path.extension().is_some_and(|extension| extension == "ports") {
                match fs::remove_file(&path) {
                    Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(error)),
                    Ok(()) | Err(_) => {}
                }
            }
        }
        Ok(())
    }
}

/// The accounts of earlier versions that had streams, by their names, and which have them now.
const FORMER_ACCOUNTS: [(&str, AccountName); 2] = [("CONTROL", AccountName::Control), ("CLIENTS", AccountName::Events)];

/// Keeps the streams of an earlier version: they may have the only copy of an acknowledged event.
fn take_over_streams(folder: &NatsFolder, identity: &Identity) -> Result<(), NatsError> {
    for (former, account) in FORMER_ACCOUNTS {
        let (from, to) = (folder.streams(former), folder.streams(identity.account(account)?.as_str()));
        if from.exists() && !to.exists() {
            otherix_runtime::files::rename(&from, &to).map_err(|source| NatsError::File {
                attempt: "take over the streams in",
                path: from.clone(),
                source,
            })?;
            let (from, to) = (from.display(), to.display());
            tracing::info!(%from, %to, "the streams of an earlier version are taken over");
        }
    }
    Ok(())
}

/// Ends a server; returns its status when it has ended.
async fn end(child: &mut NatsProcess) -> String {
    child.signal(Signal::TERM);
    if timeout(END_TIMEOUT, child.wait()).await.is_err() {
        tracing::warn!("nats-server did not end on SIGTERM; killing it");
        child.signal(Signal::KILL);
    }
    child.wait().await.to_owned()
}
