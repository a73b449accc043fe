//! A VM under supervision: observes its process, asks the [`crate::supervisor`] what to do, does it, and reports.

use std::future::pending;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use otherix_runtime::{Backoff, Runtime};
use tokio::sync::watch;
use tokio::time::Instant;

use crate::console::log::last_line;
use crate::folder::{VmFolder, VmLock, read_json, write_json};
use crate::launch::with_causes;
use crate::process::{self, Found, Launcher, VmProcess};
use crate::qmp::{QmpClient, QmpCommand, QmpError};
use crate::spec::LaunchSpec;
use crate::supervisor::{
    Action, Cause, Decision, Desired, FAILURES_MAX, MAX_PAUSE, Memory, Observed, Phase, Supervisor,
};

/// The pause before a start after the first failure; it doubles with each.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
/// Deadline of a command to QEMU.
const QMP_TIMEOUT: Duration = Duration::from_secs(5);
/// How long one attempt to connect may take, while the process is set up.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
/// While a process begins or ends.
const CHANGE_INTERVAL: Duration = Duration::from_millis(10);
/// After a connection that QEMU has closed, or that was of no use.
const RECONNECT_INTERVAL: Duration = Duration::from_secs(1);
/// The longest time without a look at the VM.
const LOOK_INTERVAL: Duration = Duration::from_secs(30);

/// What a VM is to be and to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VmOrders {
    pub desired: Desired,
    /// Used at the next start.
    pub spec: LaunchSpec,
}

/// What a VM is and does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VmStatus {
    /// The decision that this takes into account.
    pub request: u64,
    pub phase: Phase,
    pub cause: Option<Cause>,
    /// The process.
    pub pid: Option<i32>,
    /// What the guest last wrote to its console, as it was at the last change of phase or cause.
    pub last_line: Option<String>,
}

/// What a supervised VM needs.
#[derive(Debug)]
pub struct VmSetup {
    pub runtime: Arc<dyn Runtime>,
    pub folder: VmFolder,
    pub launcher: Launcher,
    /// `/proc/sys/kernel/random/boot_id`.
    pub boot_id: String,
    /// Looks at the disk before each start, while no process of the VM exists: one that a guest had taken over may have
    /// written anything to it.
    pub check_disk: fn(&LaunchSpec) -> Result<(), String>,
}

/// Supervises a VM until the sender of `orders` is dropped: its process then runs on.
///
/// # Errors
/// If the VM's folder cannot be read or written.
pub async fn supervise(
    setup: VmSetup,
    mut orders: watch::Receiver<VmOrders>,
    status: watch::Sender<Option<VmStatus>>,
) -> io::Result<()> {
    let memory = read_json::<Memory>(&setup.folder.state())?.unwrap_or_default();
    // With jitter: VMs that ended at the same moment do not start at the same moment.
    let mut backoff = Backoff::new(FIRST_PAUSE, MAX_PAUSE, setup.runtime.as_ref());
    let pauses = (0..FAILURES_MAX).map(|_| backoff.next_delay()).collect();
    let supervisor = Supervisor::new(memory, setup.boot_id.clone(), pauses);
    let mut machine = Machine { setup, supervisor, process: None, qmp: None, has_answered: false, failure: None };
    let start = Instant::now();
    loop {
        let current = orders.borrow_and_update().clone();
        let observed = machine.observe().await?;
        let before = machine.supervisor.memory().clone();
        let decision = machine.supervisor.step(&current.desired, &observed, start.elapsed());
        if *machine.supervisor.memory() != before {
            machine.store().await?;
        }
        machine.report(current.desired.request, &decision, &status);
        if let Some(action) = decision.action {
            tracing::info!(vm = %current.spec.vm, ?action, phase = ?decision.phase, "VM");
            machine.act(action, &current.spec).await;
        }
        let until = decision.wake_at.map_or(LOOK_INTERVAL, |wake_at| wake_at.saturating_sub(start.elapsed()));
        // After an action there is something new to see.
        let until = if decision.action.is_some() { CHANGE_INTERVAL } else { until.min(machine.look_interval()) };
        tokio::select! {
            changed = orders.changed() => if changed.is_err() { return Ok(()) },
            () = machine.changed(until) => {}
        }
    }
}

struct Machine {
    setup: VmSetup,
    supervisor: Supervisor,
    process: Option<VmProcess>,
    qmp: Option<QmpClient>,
    /// Whether this process has answered yet.
    has_answered: bool,
    /// Why a process could not be started.
    failure: Option<String>,
}

impl Machine {
    async fn observe(&mut self) -> io::Result<Observed> {
        if let Some(process) = &mut self.process
            && process.wait(Duration::ZERO)?
        {
            let status = process.reap()?;
            self.failure = self.last_message().or_else(|| status.map(|status| status.to_string()));
            (self.process, self.qmp, self.has_answered) = (None, None, false);
        }
        while self.process.is_none() {
            match process::find(&self.setup.folder)? {
                Found::Free(lock) => {
                    lock.clean()?;
                    return Ok(Observed::Absent { last_words: self.failure.take() });
                }
                Found::Running(process) => self.process = Some(process),
                Found::Changing => tokio::time::sleep(CHANGE_INTERVAL).await,
            }
        }
        if self.qmp.is_none() {
            self.connect().await;
        }
        let Some(qmp) = &mut self.qmp else {
            return Ok(if self.has_answered { Observed::Unresponsive } else { Observed::Starting });
        };
        match qmp.status().await {
            Ok(state) => {
                self.has_answered = true;
                Ok(Observed::Machine(state))
            }
            Err(error) => {
                tracing::warn!(error = with_causes(&error), "QEMU does not answer");
                self.qmp = None;
                Ok(Observed::Unresponsive)
            }
        }
    }

    /// The longest time until the next look.
    const fn look_interval(&self) -> Duration {
        match (&self.process, &self.qmp) {
            (Some(_), None) if self.has_answered => RECONNECT_INTERVAL,
            (Some(_), None) => CHANGE_INTERVAL,
            (Some(_), Some(_)) | (None, _) => LOOK_INTERVAL,
        }
    }

    async fn connect(&mut self) {
        let Some(process) = &self.process else { return };
        let socket = self.setup.folder.qmp_socket();
        tokio::select! {
            client = QmpClient::connect(&socket, process.pid(), CONNECT_TIMEOUT) => self.qmp = client.ok(),
            _ended = process.ended() => {}
        }
        if let Some(client) = &mut self.qmp {
            client.set_timeout(QMP_TIMEOUT);
        }
    }

    /// Waits for an event of QEMU, the end of the process, or the time.
    async fn changed(&mut self, time: Duration) {
        let (process, qmp) = (&self.process, &mut self.qmp);
        let ended = async {
            match process {
                Some(process) => process.ended().await,
                None => pending().await,
            }
        };
        let event = async {
            match qmp {
                Some(qmp) => qmp.next_event().await.err(),
                None => pending().await,
            }
        };
        // A QEMU that a guest has taken over does not keep the agent busy.
        let pause = tokio::select! {
            _ended = ended => return,
            error = event => {
                if error.is_some() {
                    self.qmp = None;
                    RECONNECT_INTERVAL
                } else {
                    CHANGE_INTERVAL
                }
            }
            () = tokio::time::sleep(time) => return,
        };
        if let Some(process) = &self.process {
            let _ended = tokio::time::timeout(pause, process.ended()).await;
        }
    }

    async fn act(&mut self, action: Action, spec: &LaunchSpec) {
        let command = match action {
            Action::Start => return self.start(spec).await,
            Action::Kill => {
                let killed = self.process.as_ref().map_or(Ok(()), VmProcess::kill);
                if let Err(error) = killed {
                    tracing::error!(%error, "cannot kill a VM's process");
                }
                return;
            }
            Action::PowerDown => QmpCommand::PowerDown,
            Action::Quit => QmpCommand::Quit,
            Action::Reset => QmpCommand::Reset,
            Action::Pause => QmpCommand::Pause,
            Action::Resume => QmpCommand::Resume,
        };
        let Some(qmp) = &mut self.qmp else { return };
        match qmp.execute(command).await {
            Ok(()) => {}
            Err(error @ QmpError::Refused { .. }) => tracing::warn!("{error}"),
            Err(error) => {
                if command != QmpCommand::Quit {
                    tracing::warn!(error = with_causes(&error), ?command, "QEMU does not answer");
                }
                self.qmp = None;
            }
        }
    }

    async fn start(&mut self, spec: &LaunchSpec) {
        let (folder, launcher, spec) = (self.setup.folder.clone(), self.setup.launcher.clone(), spec.clone());
        let check_disk = self.setup.check_disk;
        let work = move || match process::find(&folder)? {
            Found::Free(lock) => {
                check_disk(&spec).map_err(io::Error::other)?;
                process::start(lock, &launcher, &spec).map(Some)
            }
            Found::Running(process) => Ok(Some(process)),
            Found::Changing => Ok(None),
        };
        match self.setup.runtime.run_blocking("start of a VM", work).await {
            Ok(Ok(process)) => self.process = process,
            Ok(Err(error)) => self.failure = Some(with_causes(&error)),
            Err(error) => self.failure = Some(with_causes(&error)),
        }
    }

    async fn store(&self) -> io::Result<()> {
        let (path, memory) = (self.setup.folder.state(), self.supervisor.memory().clone());
        let stored = self.setup.runtime.run_blocking("state of a VM", move || write_json(&path, &memory)).await;
        stored.unwrap_or_else(|error| Err(io::Error::other(error)))
    }

    fn report(&self, request: u64, decision: &Decision, status: &watch::Sender<Option<VmStatus>>) {
        let pid = self.process.as_ref().map(VmProcess::pid);
        status.send_if_modified(|status| {
            let is_same = status.as_ref().is_some_and(|status| {
                let is_phase = status.phase == decision.phase && status.cause == decision.cause;
                is_phase && (status.request, status.pid) == (request, pid)
            });
            if !is_same {
                let folder = &self.setup.folder;
                let last_line = last_line(&folder.console_log(), &folder.older_console_log());
                let (phase, cause) = (decision.phase, decision.cause.clone());
                *status = Some(VmStatus { request, phase, cause, pid, last_line });
            }
            !is_same
        });
    }

    /// The last line of the launcher or QEMU.
    fn last_message(&self) -> Option<String> {
        last_line(&self.setup.folder.messages(), &self.setup.folder.path().join("absent"))
    }
}

/// Kills a VM's process, if there is one, and removes all its files. Its supervision must have ended, or would start it
/// again. May be repeated.
///
/// # Errors
/// If the process does not end within `timeout`, or something cannot be removed.
pub async fn remove(folder: &VmFolder, timeout: Duration) -> io::Result<()> {
    let end = Instant::now() + timeout;
    loop {
        match process::find(folder) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(error),
            Ok(Found::Free(lock)) => return VmLock::remove(lock),
            Ok(Found::Running(process)) => {
                process.kill()?;
                let _late = tokio::time::timeout_at(end, process.ended()).await;
                process.collect();
            }
            Ok(Found::Changing) => tokio::time::sleep(CHANGE_INTERVAL).await,
        }
        if Instant::now() >= end {
            return Err(io::Error::new(io::ErrorKind::TimedOut, "the VM's process does not end"));
        }
    }
}
