//! A network and a mount namespace, freed on drop. In them, `wg` finds only the sockets of processes of this node.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use otherix_testkit::{TempDir, tempdir};

use crate::BenchError;

pub(super) struct MeshNode {
    folder: TempDir,
    holder: Child,
}

impl MeshNode {
    pub(super) fn new() -> Result<Self, BenchError> {
        let folder = tempdir()?;
        // It ends when its standard input is closed, at the latest with this process.
        let script = format!(
            "mount -t tmpfs none /run && mkdir /run/wireguard && mount --bind {} /run/wireguard && \
             ip link set lo up && echo ready && exec cat",
            folder.path().display()
        );
        let mut holder = Command::new("unshare")
            .args(["--net", "--mount", "--propagation", "private", "sh", "-ec", &script])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let mut line = String::new();
        let output = holder.stdout.take().ok_or("no output")?;
        BufReader::new(output).read_line(&mut line)?;
        let node = Self { folder, holder };
        if line == "ready\n" { Ok(node) } else { Err("cannot create a namespace; the bench needs root".into()) }
    }

    pub(super) fn id(&self) -> u32 {
        self.holder.id()
    }

    /// The folder of the sockets.
    pub(super) fn folder(&self) -> PathBuf {
        self.folder.path().to_owned()
    }

    /// A command in the node's namespaces, killed with the bench.
    pub(super) fn command(&self, program: &Path) -> Command {
        let mut command = Command::new("nsenter");
        command.args(["--target", &self.id().to_string(), "--net", "--mount", "--"]);
        command.args(["setpriv", "--pdeathsig", "KILL", "--"]).arg(program);
        command
    }

    pub(super) fn sh(&self, script: &str) -> Result<String, BenchError> {
        let output = self.command(Path::new("sh")).args(["-ec", script]).output()?;
        if output.status.success() {
            return Ok(String::from_utf8(output.stdout)?);
        }
        Err(format!("`{script}`: {}", String::from_utf8_lossy(&output.stderr)).into())
    }
}

impl Drop for MeshNode {
    fn drop(&mut self) {
        let _gone = self.holder.kill();
        let _gone = self.holder.wait();
    }
}
