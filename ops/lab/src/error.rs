//! What can go wrong in a lab, and what to do about it.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use crate::lab::LabName;

/// Why a command of the lab failed.
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
    #[error("`{}` does not describe a lab", path.display())]
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
    #[error("`{command}` failed: {said}")]
    Failed { command: String, said: String },
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
    #[error("VM `{vm}` is on `{node}`, which is no node of this lab")]
    NotHere { vm: String, node: String },
    #[error("there is no guest {0}")]
    NoGuest(String),
    #[error("cannot use a tap")]
    Tap(#[from] otherix_tun::TapError),
    #[error("the guest's own `{0}` is gone")]
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
    #[error("{name} has ended; its last words in `{}`:\n{last_words}", log.display())]
    Ended { name: String, log: PathBuf, last_words: String },
    #[error("waited {} s for {what}", waited.as_secs())]
    TimedOut { what: String, waited: Duration },
    #[error("otherixd does not run, and `nats` is its child")]
    NoOtherixd,
    #[error("lab `{lab}` is not all gone:\n{}", failures.join("\n"))]
    Left { lab: LabName, failures: Vec<String> },
    #[error("cannot write the answer")]
    Output(#[source] io::Error),
}

impl LabError {
    /// What to do about it, where that is not plain.
    pub(crate) fn hint(&self) -> Option<&'static str> {
        match self {
            Self::NotRoot => Some("run it as root, or with sudo"),
            Self::NoLab(_) | Self::NoNamespace(_) | Self::NoLink(_) => Some("`otherix-lab up` makes one"),
            Self::NoNode { .. } => Some("`otherix-lab up --nodes N` adds nodes"),
            Self::NoProgram { .. } => Some("build the workspace, or name the folder with --bin-dir or OTHERIX_BIN_DIR"),
            Self::NoNatsServer => Some("name one with --nats-server or OTHERIX_NATS_SERVER"),
            Self::NoOtherixd => Some("`otherix-lab start otherixd` starts both"),
            Self::NoGuest(_) => Some("`otherix-lab guest NAME --ip CIDR` plugs one into the tap of VM NAME"),
            Self::NoNic(_) => {
                Some("a VM gets its NIC when it is created: `otherix vm create NAME --network NETWORK …`")
            }
            Self::Description { .. } | Self::Left { .. } => Some("`otherix-lab down` removes what is there"),
            Self::Ended { .. } | Self::TimedOut { .. } => {
                Some("`otherix-lab status` shows what runs, and the folder of the logs")
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
