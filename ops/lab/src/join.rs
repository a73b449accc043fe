//! How the nodes of a lab join: all with one join token, which is made when the control plane answers for the first
//! time.

use std::io;
use std::os::unix::process::CommandExt as _;
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::Duration;

use crate::error::LabError;
use crate::forward::NATS_PORT;
use crate::lab::OpenLab;
use crate::namespace::{CONTROL, OUTSIDE};
use crate::service::otherix;
use crate::target::LabService;

/// Most machines that can join with one token.
const MAX_USES: &str = "10000";

/// As long as a token can be valid.
const VALIDITY: &str = "365d";

/// The exit code of `otherix-agent join` if the control plane does not answer.
const UNREACHABLE: i32 = 7;

/// Delay between attempts to join.
const RETRY: Duration = Duration::from_millis(100);

/// The variables that would replace the settings in the agent's state folder.
const SETTINGS: [&str; 3] = ["OTHERIX_NATS_URL", "OTHERIX_CREDENTIALS", "OTHERIX_CA"];

/// Makes the lab's join token unless there is one. The control plane must answer.
pub(crate) fn ensure_token(lab: &OpenLab) -> Result<(), LabError> {
    let token = lab.lab.join_token();
    if token.exists() {
        return Ok(());
    }
    let mut command = otherix(lab);
    command.args(["node", "join-token", "create", "--max-uses", MAX_USES, "--ttl", VALIDITY]);
    command.arg("--node-server").arg(format!("nats://{CONTROL}:{NATS_PORT}")).arg("--out").arg(&token);
    let name = || "otherix node join-token create".to_owned();
    let output = command.output().map_err(|source| LabError::Run { command: name(), source })?;
    // A command at the same time may have been faster.
    if output.status.success() || token.exists() {
        return Ok(());
    }
    let output = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    Err(LabError::Failed { command: name(), output })
}

/// Joins as a node, unless that was done, and becomes its agent. Waits as long as the control plane does not answer.
pub(crate) fn run_node(lab: &OpenLab, node: u32) -> Result<(), LabError> {
    let (state, token) = (lab.lab.node_state(node), lab.lab.join_token());
    let agent = |command: &str| {
        let mut agent = Command::new(lab.description.bin_dir.join("otherix-agent"));
        SETTINGS.iter().for_each(|name| {
            agent.env_remove(name);
        });
        agent.arg(command).arg("--state").arg(&state).stdin(Stdio::null());
        agent
    };
    let failed = |command: &str, source| LabError::Run { command: format!("otherix-agent {command}"), source };
    while !state.join("connection.json").is_file() {
        if token.is_file() {
            let mut join = agent("join");
            join.args(["--name", &LabService::Node(node).to_string()]).arg("--token-file").arg(&token);
            let status = join.status().map_err(|error| failed("join", error))?;
            if !status.success() && status.code() != Some(UNREACHABLE) {
                return Err(failed("join", io::Error::other(status.to_string())));
            }
        }
        sleep(RETRY);
    }
    let mut run = agent("run");
    // The host outside is the resolver of all nodes, if a program on it is one.
    let error = run.arg("--mesh-socket-dir").arg(lab.lab.mesh_sockets(node)).args(["--dns-upstream", OUTSIDE]).exec();
    Err(failed("run", error))
}
