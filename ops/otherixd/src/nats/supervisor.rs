//! Keeps one `nats-server` running: starts it, waits until it serves, starts it again when it has ended, stops it. While
//! the file `hold` exists it is not started.
//!
//! Cancel-safety: [`Supervisor::run`] may be dropped at any await and called again; a server that is being started goes on
//! starting, and is waited for by the next call, or stopped. Dropping the supervisor kills the server.

use std::convert::Infallible;
use std::fs::{self, File};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use otherix_transport::{Credentials, NatsEndpoint};
use rustix::process::Signal;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep, sleep_until, timeout, timeout_at};

use super::child::Child;
use super::config::{Folder, render};
use super::credentials::Users;
use super::error::NatsError;
use super::files::{private_folder, write_private};
use super::lock::lock_store;
use super::program;
use super::readiness::{last_words, wait_ready};

/// How long a server may take to serve: it reads its store first.
const READY_WITHIN: Duration = Duration::from_secs(60);
/// How long a server that was asked to end may take.
const END_WITHIN: Duration = Duration::from_secs(10);
/// Pauses before a server is started again: none at first, then from this one up to the other.
const PAUSE_MIN: Duration = Duration::from_millis(100);
const PAUSE_MAX: Duration = Duration::from_secs(1);
/// A server that has run for so long is started again at once.
const STEADY: Duration = Duration::from_secs(10);
/// How often the file `hold` is looked for while it is there.
const HOLD_POLL: Duration = Duration::from_millis(250);

/// How NATS is to be run.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    /// The state folder of the control plane.
    pub(crate) state: PathBuf,
    /// Where clients connect; port 0 is one that is free, chosen at the first start of the supervisor and kept.
    pub(crate) listen: SocketAddr,
    /// The `nats-server` to run, if not the one of the environment or of PATH.
    pub(crate) server: Option<PathBuf>,
}

/// How the control plane reaches the server.
#[derive(Clone, Debug)]
pub(crate) struct Access {
    /// Where.
    pub(crate) url: String,
    /// Into the account of the stream and the services.
    pub(crate) control: NatsEndpoint,
    /// Into the account of people and nodes.
    pub(crate) clients: NatsEndpoint,
    /// Has a server that serves started again.
    pub(crate) restart: Arc<Notify>,
}

/// A server that is kept running.
pub(crate) struct Supervisor {
    folder: Folder,
    program: PathBuf,
    listen: SocketAddr,
    users: Users,
    phase: Phase,
    restart: Arc<Notify>,
    lock: File, // dropped after the child, which uses what it protects
}

enum Phase {
    /// It has been started, and does not serve yet.
    Starting { child: Child, ready_by: Instant },
    /// It serves.
    Up { child: Child, since: Instant },
    /// It has ended, and is started again at the given time.
    Down { start_at: Instant },
}

/// How often a server that ends while it starts is started, before that is taken for its answer.
const START_ATTEMPTS: u32 = 3;

impl Supervisor {
    /// Makes what is missing below the state folder, starts the server and returns when it serves. Waits while there is a
    /// file `hold`.
    pub(crate) async fn start(settings: Settings) -> Result<Self, NatsError> {
        let Settings { state, listen, server } = settings;
        let program = program::find(server.as_deref())?;
        program::check_version(&program)?;
        let folder = Folder::of(&state)?;
        private_folder(&state)?;
        private_folder(folder.path())?;
        let users = Users::load_or_make(&state)?;
        let lock = lock_store(&folder).await?;
        let phase = Phase::Down { start_at: Instant::now() };
        let mut supervisor = Self { folder, program, listen, users, phase, restart: Arc::default(), lock };
        let mut left = START_ATTEMPTS;
        loop {
            supervisor.wait_while_held().await;
            supervisor.launch()?;
            left -= 1;
            match supervisor.await_ready().await {
                // Somebody may have killed it.
                Err(error @ NatsError::Ended { .. }) if left > 0 => tracing::warn!(%error, "starting it again"),
                ended => return ended.map(|()| supervisor),
            }
        }
    }

    /// How the control plane itself reaches the server, also while the supervisor runs.
    pub(crate) fn access(&self) -> Access {
        Access {
            url: self.url(),
            control: self.endpoint(&self.users().control),
            clients: self.endpoint(&self.users.clients),
            restart: Arc::clone(&self.restart),
        }
    }

    /// The users and their credentials.
    pub(super) fn users(&self) -> &Users {
        &self.users
    }

    /// How to connect as one of the users.
    pub(super) fn endpoint(&self, credentials: &Credentials) -> NatsEndpoint {
        NatsEndpoint { url: self.url(), credentials: credentials.clone() }
    }

    /// Where the server is.
    pub(super) fn url(&self) -> String {
        let local = match self.listen.ip() {
            IpAddr::V4(Ipv4Addr::UNSPECIFIED) => Ipv4Addr::LOCALHOST.into(),
            IpAddr::V6(Ipv6Addr::UNSPECIFIED) => Ipv6Addr::LOCALHOST.into(),
            address @ (IpAddr::V4(_) | IpAddr::V6(_)) => address,
        };
        format!("nats://{}", SocketAddr::new(local, self.listen.port()))
    }

    /// Keeps the server running until the future is dropped.
    pub(crate) async fn run(&mut self) -> Infallible {
        let mut pause = Duration::ZERO; // before the start after the next failure
        loop {
            match &mut self.phase {
                Phase::Up { child, since } => {
                    let status = tokio::select! {
                        status = child.wait() => status.to_owned(),
                        () = self.restart.notified() => end(child).await,
                    };
                    tracing::warn!(status, log = %self.folder.log().display(), "nats-server has ended");
                    if since.elapsed() >= STEADY {
                        pause = Duration::ZERO;
                    }
                    self.phase = Phase::Down { start_at: Instant::now() + pause };
                    pause = (pause * 2).clamp(PAUSE_MIN, PAUSE_MAX);
                }
                Phase::Starting { .. } => match self.await_ready().await {
                    Ok(()) => tracing::info!(url = self.url(), "nats-server serves again"),
                    Err(error) => self.put_off(&error, &mut pause),
                },
                Phase::Down { start_at } => {
                    let start_at = *start_at;
                    sleep_until(start_at).await;
                    self.wait_while_held().await;
                    if let Err(error) = self.launch() {
                        self.put_off(&error, &mut pause);
                    }
                }
            }
        }
    }

    /// After a failure to start: again, later.
    fn put_off(&mut self, error: &NatsError, pause: &mut Duration) {
        *pause = (*pause * 2).clamp(PAUSE_MIN, PAUSE_MAX);
        tracing::error!(%error, pause_ms = pause.as_millis(), "nats-server is not started");
        self.phase = Phase::Down { start_at: Instant::now() + *pause };
    }

    /// Stops the server; returns when it is gone.
    pub(crate) async fn stop(mut self) {
        let (Phase::Up { child, .. } | Phase::Starting { child, .. }) = &mut self.phase else {
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
        let text = format!("{:#}\n", render(&self.folder, self.listen, &self.users));
        write_private(&self.folder.config(), text.as_bytes())?;
        let stderr = self.folder.stderr();
        let stderr =
            File::create(&stderr).map_err(|source| NatsError::File { attempt: "write", path: stderr, source })?;
        let mut command = Command::new(&self.program);
        command.arg("-c").arg(self.folder.config());
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(stderr);
        let child = Child::spawn(command, &self.lock)
            .map_err(|source| NatsError::Run { program: self.program.clone(), source })?;
        self.phase = Phase::Starting { child, ready_by: Instant::now() + READY_WITHIN };
        Ok(())
    }

    /// Waits until a server that has been started serves. One that does not is gone afterwards.
    async fn await_ready(&mut self) -> Result<(), NatsError> {
        let Phase::Starting { child, ready_by } = &mut self.phase else {
            return Ok(());
        };
        let pid = child.pid();
        let ready = tokio::select! {
            ready = timeout_at(*ready_by, wait_ready(&self.folder, pid)) => ready,
            status = child.wait() => return Err(NatsError::Ended {
                status: status.to_owned(),
                said: last_words(&self.folder),
                log: self.folder.log(),
            }),
        };
        let Ok(port) = ready else {
            child.signal(Signal::KILL);
            child.wait().await;
            return Err(NatsError::NotReady { waited: READY_WITHIN, log: self.folder.log() });
        };
        self.listen.set_port(port);
        tracing::debug!(pid, port, "nats-server serves");
        let started = std::mem::replace(&mut self.phase, Phase::Down { start_at: Instant::now() });
        if let Phase::Starting { child, .. } = started {
            self.phase = Phase::Up { child, since: Instant::now() };
        }
        Ok(())
    }

    /// Removes what servers that were killed have left: process ids come again.
    fn clear_ports(&self) -> Result<(), NatsError> {
        let failed = |source| NatsError::File { attempt: "tidy", path: self.folder.path().to_owned(), source };
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

/// Ends a server; returns when it is gone.
async fn end(child: &mut Child) -> String {
    child.signal(Signal::TERM);
    if timeout(END_WITHIN, child.wait()).await.is_err() {
        tracing::warn!("nats-server does not end when asked to, and is killed");
        child.signal(Signal::KILL);
    }
    child.wait().await.to_owned()
}
