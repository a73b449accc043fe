//! Errors of the kernel. The texts become statuses of networks and NICs.

use std::io;

#[derive(Debug, thiserror::Error)]
pub enum KernelError {
    #[error("cannot open a netlink socket")]
    Open(#[source] io::Error),
    #[error("cannot read {what}: {reason}")]
    Read { what: &'static str, reason: String },
    #[error("cannot create `{name}`: {reason}")]
    Create { name: String, reason: String },
    #[error("the thread that accesses the kernel was aborted")]
    Aborted(#[source] tokio::task::JoinError),
    #[error("cannot repair the {what}: {reason}")]
    Repair { what: &'static str, reason: String },
    #[error("cannot remove `{name}`: {reason}")]
    Remove { name: String, reason: String },
    #[error("cannot write the packet filter's table `otherix`: {0}")]
    WriteTable(String),
    #[error("cannot write the packet filter's tables `otherix_guests`: {0}")]
    WriteGuestFilter(String),
    #[error("cannot change IPv4 forwarding on `{name}`: {source}")]
    Forwarding { name: String, source: io::Error },
}
