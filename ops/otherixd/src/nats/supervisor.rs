//! Keeps one `nats-server` running: starts it, waits until it serves, starts it again when it has ended, stops it. While
//! the file `hold` exists it is not started.
//!
//! Cancel-safety: [`Supervisor::run`] may be dropped at any await and called again. A server that is being started when it
//! is dropped is killed, and started anew by the next call. Dropping the supervisor kills the server.

use std::convert::Infallible;
use std::fs::{self, File};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use otherix_transport::{Credentials, Endpoint};
use rustix::process::Signal;
use tokio::time::{Instant, sleep, sleep_until, timeout};

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

/// A server that is kept running.
pub(crate) struct Supervisor {
    folder: Folder,
    program: PathBuf,
    listen: SocketAddr,
    users: Users,
    phase: Phase,
    lock: File, // dropped after the child, which uses what it protects
}

enum Phase {
    /// It serves.
    Up { child: Child, since: Instant },
    /// It has ended, and is started again at the given time.
    Down { start_at: Instant, pause: Duration },
}

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
        let phase = Phase::Down { start_at: Instant::now(), pause: Duration::ZERO };
        let mut supervisor = Self { folder, program, listen, users, phase, lock };
        supervisor.wait_while_held().await;
        supervisor.launch().await?;
        Ok(supervisor)
    }

    /// Where the control plane itself connects.
    pub(crate) fn url(&self) -> String {
        let local = match self.listen.ip() {
            IpAddr::V4(Ipv4Addr::UNSPECIFIED) => Ipv4Addr::LOCALHOST.into(),
            IpAddr::V6(Ipv6Addr::UNSPECIFIED) => Ipv6Addr::LOCALHOST.into(),
            address @ (IpAddr::V4(_) | IpAddr::V6(_)) => address,
        };
        format!("nats://{}", SocketAddr::new(local, self.listen.port()))
    }

    /// The users and their credentials.
    pub(crate) fn users(&self) -> &Users {
        &self.users
    }

    /// How to connect as one of the users.
    pub(crate) fn endpoint(&self, credentials: &Credentials) -> Endpoint {
        Endpoint { url: self.url(), credentials: credentials.clone() }
    }

    /// Keeps the server running until the future is dropped.
    pub(crate) async fn run(&mut self) -> Infallible {
        loop {
            match &mut self.phase {
                Phase::Up { child, since } => {
                    let status = child.wait().await;
                    let pause = if since.elapsed() < STEADY { PAUSE_MIN } else { Duration::ZERO };
                    tracing::warn!(status, log = %self.folder.log().display(), "nats-server has ended");
                    self.phase = Phase::Down { start_at: Instant::now(), pause };
                }
                Phase::Down { start_at, pause } => {
                    let (start_at, pause) = (*start_at, *pause);
                    sleep_until(start_at).await;
                    self.wait_while_held().await;
                    match self.launch().await {
                        Ok(()) => tracing::info!(url = self.url(), "nats-server serves again"),
                        Err(error) => {
                            tracing::error!(error = %error, pause_ms = pause.as_millis(), "nats-server is not started");
                            let next = (pause * 2).clamp(PAUSE_MIN, PAUSE_MAX);
                            self.phase = Phase::Down { start_at: Instant::now() + pause.max(PAUSE_MIN), pause: next };
                        }
                    }
                }
            }
        }
    }

    /// Stops the server; returns when it is gone.
    pub(crate) async fn stop(mut self) {
        let Phase::Up { child, .. } = &mut self.phase else {
            return;
        };
        child.signal(Signal::TERM);
        if timeout(END_WITHIN, child.wait()).await.is_err() {
            tracing::warn!("nats-server does not end when asked to, and is killed");
            child.signal(Signal::KILL);
            child.wait().await;
        }
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

    /// Starts the server and waits until it serves.
    async fn launch(&mut self) -> Result<(), NatsError> {
        self.clear_ports()?;
        let text = format!("{:#}\n", render(&self.folder, self.listen, &self.users));
        write_private(&self.folder.config(), text.as_bytes())?;
        let stderr = self.folder.stderr();
        let stderr =
            File::create(&stderr).map_err(|source| NatsError::File { attempt: "write", path: stderr, source })?;
        let mut command = Command::new(&self.program);
        command.arg("-c").arg(self.folder.config());
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(stderr);
        let mut child = Child::spawn(command, &self.lock)
            .await
            .map_err(|source| NatsError::Run { program: self.program.clone(), source })?;
        let pid = child.pid();
        let ready = tokio::select! {
            ready = timeout(READY_WITHIN, wait_ready(&self.folder, pid)) => ready,
            status = child.wait() => return Err(NatsError::Ended {
                status: status.to_owned(),
                said: last_words(&self.folder),
                log: self.folder.log(),
            }),
        };
        let port = ready.map_err(|_elapsed| NatsError::NotReady { waited: READY_WITHIN, log: self.folder.log() })?;
        self.listen.set_port(port);
        tracing::debug!(pid, port, "nats-server serves");
        self.phase = Phase::Up { child, since: Instant::now() };
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
