//! The lab of the bench, created and removed through `otherix-lab`. Owns no namespace or process itself.

use std::fs::File;
use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use otherix_transport::{Credentials, NatsEndpoint};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use serde_json::Value;

use crate::Failure;

/// Folder of all labs; the journal is in it.
const LABS: &str = "/var/lib/otherix-lab";

/// URL of NATS in the underlay's namespace, without the delay of the lab's forwarded port.
const NATS: &str = "nats://10.99.0.1:4222";

/// A lab, removed on drop.
pub(crate) struct Lab {
    program: PathBuf,
    name: String,
}

/// Access to a lab from any thread.
#[derive(Clone, Debug)]
pub(crate) struct Access {
    namespace: PathBuf,
    node: PathBuf,
    folder: PathBuf,
}

impl Lab {
    /// Creates a new lab of this name and waits until its nodes have joined. May be dropped at the await: the guard
    /// removes what exists by then.
    pub(crate) async fn up(bin_dir: &Path, name: &str, nodes: usize) -> Result<Self, Failure> {
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

    pub(crate) fn access(&self) -> Access {
        let namespace = |of: &str| Path::new("/run/netns").join(format!("otx-{}-{of}", self.name));
        let (namespace, node) = (namespace("underlay"), namespace("node-1"));
        Access { namespace, node, folder: Path::new(LABS).join(&self.name) }
    }

    /// Process id of the first node's agent.
    pub(crate) fn agent(&self) -> Result<u32, Failure> {
        let mut command = std::process::Command::new(&self.program);
        let output = command.args(["--lab", &self.name, "status", "-o", "json"]).stdin(Stdio::null()).output()?;
        let status: Value = serde_json::from_slice(&output.stdout)?;
        let mut processes = status.get("processes").and_then(Value::as_array).into_iter().flatten();
        let is_agent = |process: &&Value| process.get("name").is_some_and(|name| name == "node-1");
        let pid = processes.find(is_agent).and_then(|agent| agent.get("pid")?.as_u64());
        Ok(u32::try_from(pid.ok_or("the agent is not running")?)?)
    }

    /// Removes the lab, and that of an earlier run that was killed.
    fn down(&self) -> Result<(), Failure> {
        let mut command = std::process::Command::new(&self.program);
        let output = command.args(["--lab", &self.name, "down"]).stdin(Stdio::null()).output();
        let output = output.map_err(|error| format!("cannot run `{}`: {error}", self.program.display()))?;
        if output.status.success() {
            return Ok(());
        }
        Err(format!("cannot remove the lab: {}", String::from_utf8_lossy(&output.stderr).trim()).into())
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        if let Err(error) = self.down() {
            crate::report::say(&error.to_string());
        }
    }
}

impl Access {
    /// A folder on the file system of the lab's journal, removed with the lab.
    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    /// Moves this thread into the control plane's namespace.
    pub(crate) fn enter(&self) -> Result<(), Failure> {
        let namespace = File::open(&self.namespace)?;
        Ok(move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network))?)
    }

    /// Moves this thread into the first node's namespace.
    pub(crate) fn enter_node(&self) -> Result<(), Failure> {
        let node = File::open(&self.node)?;
        Ok(move_into_link_name_space(node.as_fd(), Some(LinkNameSpaceType::Network))?)
    }

    /// How a client connects from there.
    pub(crate) fn endpoint(&self) -> Result<NatsEndpoint, Failure> {
        let credentials = Credentials::load(&self.folder.join("otherixd/credentials/admin.json"))?;
        Ok(NatsEndpoint { url: NATS.to_owned(), credentials })
    }
}
