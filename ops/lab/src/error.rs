//! Errors of the lab's commands, with their hints.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use crate::name::LabName;

#[derive(Debug, thiserror::Error)]
pub(crate) enum LabError {
    #[error("network namespaces need root")]
    NotRoot,
    #[error("there is no lab `{0}`")]
    NoLab(LabName),
    #[error("lab `{lab}` has no node-{node}; it has {nodes}")]
    NoNode { lab: LabName, node: u32, nodes: u32 },
    #[error("node-{0} has no link to the underlay")]
    NoLink(u32),
    #[error("there is no namespace `{0}`")]
    NoNamespace(String),
    #[error("cannot {attempt} `{}`", path.display())]
    File {
        attempt: &'static str,
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("`{}` is not a valid description of a lab", path.display())]
    Description {
        path: PathBuf,
        #[source]
        source: serde_json::Error,
    },
    #[error("there is no `{name}` in `{}`", folder.display())]
    NoProgram { name: &'static str, folder: PathBuf },
    #[error("there is no `nats-server` on PATH")]
    NoNatsServer,
    #[error("cannot run `{command}`")]
    Run {
        command: String,
        #[source]
        source: io::Error,
    },
    #[error("`{command}` failed: {output}")]
    Failed { command: String, output: String },
    #[error("cannot listen on 127.0.0.1:{port}")]
    Listen {
        port: u16,
        #[source]
        source: io::Error,
    },
    #[error("cannot enter the namespace `{namespace}`")]
    Enter {
        namespace: String,
        #[source]
        source: io::Error,
    },
    #[error("VM `{0}` has no NIC")]
    NoNic(String),
    #[error("VM `{vm}` is on `{node}`, which is not a node of this lab")]
    NotHere { vm: String, node: String },
    #[error("there is no guest {0}")]
    NoGuest(String),
    #[error("cannot use a tap")]
    Tap(#[from] otherix_tun::TapError),
    #[error("the guest's `{0}` no longer exists")]
    GuestTapGone(&'static str),
    #[error("cannot wait for frames")]
    Poll(#[source] io::Error),
    #[error("cannot accept connections")]
    Accept(#[source] io::Error),
    #[error("cannot signal process {pid} of {name}")]
    Signal {
        name: String,
        pid: i32,
        #[source]
        source: io::Error,
    },
    #[error("{name} has ended; end of its log `{}`:\n{last_lines}", log.display())]
    Ended { name: String, log: PathBuf, last_lines: String },
    #[error("waited {} s for {what}", waited.as_secs())]
    TimedOut { what: String, waited: Duration },
    #[error("otherixd, which runs `nats`, is not running")]
    NoOtherixd,
    #[error("lab `{lab}` is not completely removed:\n{}", failures.join("\n"))]
    Left { lab: LabName, failures: Vec<String> },
    #[error("cannot write the output")]
    Output(#[source] io::Error),
}

impl LabError {
    /// How to resolve it, where the message does not state it.
    pub(crate) fn hint(&self) -> Option<&'static str> {
        match self {
            Self::NotRoot => Some("run it as root, or with sudo"),
            Self::NoLab(_) | Self::NoNamespace(_) | Self::NoLink(_) => Some("`otherix-lab up` creates it"),
            Self::NoNode { .. } => Some("`otherix-lab up --nodes N` adds nodes"),
            Self::NoProgram { .. } => Some("build the workspace, or set the folder with --bin-dir or OTHERIX_BIN_DIR"),
            Self::NoNatsServer => Some("set one with --nats-server or OTHERIX_NATS_SERVER"),
            Self::NoOtherixd => Some("`otherix-lab start otherixd` starts both"),
            Self::NoGuest(_) => Some("`otherix-lab guest NAME --ip CIDR` plugs one into the tap of VM NAME"),
            Self::NoNic(_) => {
                Some("a VM gets its NIC when it is created: `otherix vm create NAME --network NETWORK …`")
            }
            Self::Description { .. } | Self::Left { .. } => Some("`otherix-lab down` removes it"),
            Self::Ended { .. } | Self::TimedOut { .. } => {
                Some("`otherix-lab status` shows the processes and the folder of their logs")
            }
            Self::File { .. }
            | Self::Run { .. }
            | Self::Failed { .. }
            | Self::Listen { .. }
            | Self::Enter { .. }
            | Self::Accept(_)
            | Self::NotHere { .. }
            | Self::Tap(_)
            | Self::GuestTapGone(_)
            | Self::Poll(_)
            | Self::Signal { .. }
            | Self::Output(_) => None,
        }
    }
}
