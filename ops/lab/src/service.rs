//! The processes of a lab: how each is started and stopped, and when it is operational. Every operation is idempotent.

use std::fs;
use std::io::{self, Read as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::process::{Command, Stdio};
use std::time::Duration;

use rustix::process::Signal;

use crate::error::LabError;
use crate::forward::NATS_PORT;
use crate::join::ensure_token;
use crate::lab::OpenLab;
use crate::lock::LabLock;
use crate::namespace::{CONTROL, UnderlayLink};
use crate::output::report_progress;
use crate::partition;
use crate::process::{self, LabProcess};
use crate::program;
use crate::target::LabService;
use crate::wait::wait_for;

pub(crate) const FORWARD: &str = "forward";
const OTHERIXD: &str = "otherixd";

/// Time-out for a process to become operational.
const READY_TIMEOUT: Duration = Duration::from_secs(60);
/// Time-out of one connection attempt.
const PROBE_TIMEOUT: Duration = Duration::from_secs(1);

impl OpenLab {
    /// Where clients on the host connect.
    pub(crate) fn url(&self) -> String {
        format!("nats://127.0.0.1:{}", self.description.port)
    }

    pub(crate) fn otherixd(&self) -> Result<Option<LabProcess>, LabError> {
        process::running(&self.lab, OTHERIXD)
    }

    /// The nats-server, which is otherixd's only child.
    pub(crate) fn nats(&self) -> Result<Option<LabProcess>, LabError> {
        Ok(self.otherixd()?.and_then(LabProcess::child))
    }

    /// Fails if the lab has no such target.
    pub(crate) fn check(&self, target: LabService) -> Result<(), LabError> {
        let nodes = self.description.nodes;
        match target {
            LabService::Node(node) if node == 0 || node > nodes => {
                Err(LabError::NoNode { lab: self.lab.name.clone(), node, nodes })
            }
            LabService::Node(_) | LabService::Otherixd | LabService::Nats => Ok(()),
        }
    }

    fn process(&self, target: LabService) -> Result<Option<LabProcess>, LabError> {
        match target {
            LabService::Node(_) | LabService::Otherixd => process::running(&self.lab, &target.to_string()),
            LabService::Nats => self.nats(),
        }
    }
}

/// Kills with SIGKILL; otherixd restarts its nats-server.
pub(crate) fn kill(lab: &OpenLab, target: LabService) -> Result<(), LabError> {
    lab.check(target)?;
    match lab.process(target)? {
        Some(process) => {
            process.end(&target.to_string(), Signal::KILL)?;
            report_progress(&format!("{target} killed"));
        }
        None => report_progress(&format!("{target} is not running")),
    }
    Ok(())
}

/// Stops with SIGTERM.
pub(crate) fn stop(lab: &OpenLab, target: LabService) -> Result<(), LabError> {
    lab.check(target)?;
    if target == LabService::Nats {
        let _lock = LabLock::of_existing(&lab.lab)?;
        let hold = lab.lab.hold_file();
        if lab.lab.control_state().join("nats").is_dir() {
            fs::write(&hold, "").map_err(|source| LabError::File { attempt: "write", path: hold, source })?;
        }
    }
    let mut stopped = false;
    // A nats-server that was being started while the hold file was written is stopped too.
    while let Some(process) = lab.process(target)? {
        process.end(&target.to_string(), Signal::TERM)?;
        stopped = true;
    }
    report_progress(&format!("{target} {}", if stopped { "stopped" } else { "is not running" }));
    Ok(())
}

/// Starts a process, and returns when it is operational. The lock is released before that wait.
pub(crate) fn start(lab: &OpenLab, target: LabService, lock: LabLock) -> Result<(), LabError> {
    lab.check(target)?;
    match target {
        LabService::Otherixd => {
            launch_otherixd(lab)?;
            drop(lock);
            if lab.lab.hold_file().exists() {
                report_progress("otherixd started; nats is stopped, and `otherix-lab start nats` starts it");
                return Ok(());
            }
            await_control_plane(lab)?;
        }
        LabService::Nats => {
            remove_hold(lab)?;
            drop(lock);
            await_control_plane(lab)?;
        }
        LabService::Node(node) => {
            launch_node(lab, node)?;
            drop(lock);
            if let Some(obstacle) = join_obstacle(lab, node)? {
                report_progress(&format!("node-{node} started; it joins when {obstacle}"));
                return Ok(());
            }
            await_node(lab, node)?;
        }
    }
    report_progress(&format!("{target} is running"));
    Ok(())
}

/// Allows otherixd to start its server.
fn remove_hold(lab: &OpenLab) -> Result<(), LabError> {
    let hold = lab.lab.hold_file();
    match fs::remove_file(&hold) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            return Err(LabError::File { attempt: "remove", path: hold, source: error });
        }
        Ok(()) | Err(_) => {}
    }
    if lab.otherixd()?.is_none() { Err(LabError::NoOtherixd) } else { Ok(()) }
}

/// The condition that a node waits for before it can join, if any.
pub(crate) fn join_obstacle(lab: &OpenLab, node: u32) -> Result<Option<&'static str>, LabError> {
    if lab.nats()?.is_none() {
        return Ok(Some("otherixd and nats are running"));
    }
    let cut_off = partition::link(lab, node)? == UnderlayLink::Partitioned;
    Ok(cut_off.then_some("it is healed: it is cut off from the underlay"))
}

/// Starts the forwarding of the lab's loopback port. `listener` is that port if it has just been chosen.
pub(crate) fn launch_forward(lab: &OpenLab, listener: Option<TcpListener>) -> Result<(), LabError> {
    if process::running(&lab.lab, FORWARD)?.is_some() {
        return Ok(());
    }
    let port = lab.description.port;
    let listener = match listener {
        Some(listener) => listener,
        None => listen(port)?,
    };
    let mut command = program::this_program()?;
    command.arg(FORWARD).arg(lab.lab.underlay());
    process::start(&lab.lab, FORWARD, &command, Stdio::from(std::os::fd::OwnedFd::from(listener)))?;
    Ok(())
}

/// Listens on loopback; port 0 chooses a free one.
pub(crate) fn listen(port: u16) -> Result<TcpListener, LabError> {
    TcpListener::bind((Ipv4Addr::LOCALHOST, port)).map_err(|source| LabError::Listen { port, source })
}

/// Starts the control plane unless it is running.
pub(crate) fn launch_otherixd(lab: &OpenLab) -> Result<(), LabError> {
    if lab.otherixd()?.is_some() {
        return Ok(());
    }
    let mut command = program::ip();
    command.args(["netns", "exec", &lab.lab.underlay()]).arg(lab.description.bin_dir.join(OTHERIXD));
    command.arg("run").arg("--state").arg(lab.lab.control_state());
    command.arg("--listen").arg(format!("{CONTROL}:{NATS_PORT}"));
    command.arg("--nats-server").arg(&lab.description.nats_server);
    process::start(&lab.lab, OTHERIXD, &command, Stdio::null())?;
    Ok(())
}

/// Starts a node's agent unless it is running.
pub(crate) fn launch_node(lab: &OpenLab, node: u32) -> Result<(), LabError> {
    let name = LabService::Node(node).to_string();
    if process::running(&lab.lab, &name)?.is_some() {
        return Ok(());
    }
    let joined = lab.lab.joined_file(node);
    match fs::remove_file(&joined) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            return Err(LabError::File { attempt: "remove", path: joined, source: error });
        }
        Ok(()) | Err(_) => {}
    }
    let mut command = program::ip();
    command.args(["netns", "exec", &lab.lab.node(node)]).arg(program::this_program()?.get_program());
    command.args(["--lab", lab.lab.name.as_str(), "node", &node.to_string()]);
    process::start(&lab.lab, &name, &command, Stdio::null())?;
    Ok(())
}

/// Waits until the control plane answers a query through the forwarded port, and nodes can join.
pub(crate) fn await_control_plane(lab: &OpenLab) -> Result<(), LabError> {
    wait_for("otherixd to answer `otherix network list`", READY_TIMEOUT, || {
        if lab.otherixd()?.is_none() {
            return Err(process::ended(&lab.lab, OTHERIXD));
        }
        Ok(nats_accepts(lab.description.port) && control_plane_answers(lab))
    })?;
    ensure_token(lab)
}

/// Waits until a node's agent has joined.
pub(crate) fn await_node(lab: &OpenLab, node: u32) -> Result<(), LabError> {
    let name = LabService::Node(node).to_string();
    wait_for(&format!("{name} to join"), READY_TIMEOUT, || {
        if process::running(&lab.lab, &name)?.is_none() {
            return Err(process::ended(&lab.lab, &name));
        }
        Ok(lab.lab.joined_file(node).exists())
    })
}

/// True if a nats-server sends its greeting on the forwarded port.
fn nats_accepts(port: u16) -> bool {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let Ok(mut stream) = TcpStream::connect_timeout(&address, PROBE_TIMEOUT) else {
        return false;
    };
    let mut greeting = [0; 5];
    stream.set_read_timeout(Some(PROBE_TIMEOUT)).is_ok()
        && stream.read_exact(&mut greeting).is_ok()
        && greeting == *b"INFO "
}

fn control_plane_answers(lab: &OpenLab) -> bool {
    otherix(lab).args(["network", "list", "-o", "json"]).output().is_ok_and(|output| output.status.success())
}

/// The CLI, configured for the lab.
pub(crate) fn otherix(lab: &OpenLab) -> Command {
    let mut command = Command::new(lab.description.bin_dir.join("otherix"));
    command.env("OTHERIX_NATS_URL", lab.url()).env("OTHERIX_CREDENTIALS", lab.lab.credentials("admin"));
    command.env("OTHERIX_CA", lab.lab.ca()).env_remove("OTHERIX_CONTEXT");
    command.stdin(Stdio::null());
    command
}
