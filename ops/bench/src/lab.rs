//! The lab of the bench, created and removed through `otherix-lab`. Owns no namespace or process itself.

use std::fs::File;
use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use otherix_transport::{Credentials, NatsEndpoint, TrustedCa};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use serde_json::Value;

use crate::BenchError;

/// Folder of all labs; the journal is in it.
const LABS: &str = "/var/lib/otherix-lab";

/// URL of NATS in the underlay's namespace, without the delay of the lab's forwarded port.
const NATS: &str = "nats://10.99.0.1:4222";

/// A lab, removed on drop.
pub(crate) struct BenchLab {
    program: PathBuf,
    name: String,
}

/// The namespaces and files of a lab, usable from any thread.
#[derive(Clone, Debug)]
pub(crate) struct LabAccess {
    namespace: PathBuf,
    node: PathBuf,
    folder: PathBuf,
}

impl BenchLab {
    /// Creates a new lab of this name and waits until its nodes have joined. Cancel-safe: the guard removes
    /// whatever exists.
    pub(crate) async fn up(bin_dir: &Path, name: &str, nodes: usize) -> Result<Self, BenchError> {
        let lab = Self { program: bin_dir.join("otherix-lab"), name: name.to_owned() };
        lab.down()?;
        let mut command = tokio::process::Command::new(&lab.program);
        command.args(["--lab", name, "up", "--nodes", &nodes.to_string(), "--bin-dir"]).arg(bin_dir);
        let output = command.stdin(Stdio::null()).kill_on_drop(true).output().await?;
        if output.status.success() {
            return Ok(lab);
        }
        Err(format!("cannot start the lab: {}", String::from_utf8_lossy(&output.stderr).trim()).into())
    }

    pub(crate) fn access(&self) -> LabAccess {
        let namespace = |of: &str| Path::new("/run/netns").join(format!("otx-{}-{of}", self.name));
        let (namespace, node) = (namespace("underlay"), namespace("node-1"));
        LabAccess { namespace, node, folder: Path::new(LABS).join(&self.name) }
    }

    /// Process id of the first node's agent.
    pub(crate) fn agent(&self) -> Result<u32, BenchError> {
        let mut command = std::process::Command::new(&self.program);
        let output = command.args(["--lab", &self.name, "status", "-o", "json"]).stdin(Stdio::null()).output()?;
        let status: Value = serde_json::from_slice(&output.stdout)?;
        let mut processes = status.get("processes").and_then(Value::as_array).into_iter().flatten();
        let is_agent = |process: &&Value| process.get("name").is_some_and(|name| name == "node-1");
        let pid = processes.find(is_agent).and_then(|agent| agent.get("pid")?.as_u64());
        Ok(u32::try_from(pid.ok_or("the agent is not running")?)?)
    }

    /// Removes the lab, and that of an earlier run that was killed.
    fn down(&self) -> Result<(), BenchError> {
        let mut command = std::process::Command::new(&self.program);
        let output = command.args(["--lab", &self.name, "down"]).stdin(Stdio::null()).output();
        let output = output.map_err(|error| format!("cannot run `{}`: {error}", self.program.display()))?;
        if output.status.success() {
            return Ok(());
        }
        Err(format!("cannot remove the lab: {}", String::from_utf8_lossy(&output.stderr).trim()).into())
    }
}

impl Drop for BenchLab {
    fn drop(&mut self) {
        if let Err(error) = self.down() {
            crate::report::report_progress(&error.to_string());
        }
    }
}

impl LabAccess {
    /// A folder on the file system of the lab's journal, removed with the lab.
    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    /// Moves this thread into the control plane's namespace.
    pub(crate) fn enter(&self) -> Result<(), BenchError> {
        let namespace = File::open(&self.namespace)?;
        Ok(move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network))?)
    }

    /// Moves this thread into the first node's namespace.
    pub(crate) fn enter_node(&self) -> Result<(), BenchError> {
        let node = File::open(&self.node)?;
        Ok(move_into_link_name_space(node.as_fd(), Some(LinkNameSpaceType::Network))?)
    }

    /// The NATS endpoint in the control plane's namespace.
    pub(crate) fn endpoint(&self) -> Result<NatsEndpoint, BenchError> {
        let credentials = Credentials::load(&self.folder.join("otherixd/credentials/admin.creds"))?;
        let ca = TrustedCa::load(&self.folder.join("otherixd/identity/tls/ca.pem"))?;
        Ok(NatsEndpoint::new(NATS, credentials).with_ca(Some(ca)))
    }
}
