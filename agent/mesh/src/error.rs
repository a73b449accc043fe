//! Errors of running a mesh device.

use std::io;
use std::path::PathBuf;

use super::control_socket::ControlError;
use super::tun::TunError;

/// Why a mesh device cannot start or has ended.
#[derive(Debug, thiserror::Error)]
pub enum MeshRunError {
    #[error(transparent)]
    Control(#[from] ControlError),
    #[error(transparent)]
    Tun(#[from] TunError),
    #[error("cannot listen on UDP port {port}")]
    Bind {
        port: u16,
        #[source]
        source: io::Error,
    },
    #[error("cannot read the private key from `{}`", path.display())]
    Key {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("cannot create a session for this process")]
    Detach(#[source] io::Error),
    #[error("cannot handle signals")]
    Signals(#[source] io::Error),
    #[error("cannot wait for packets")]
    Poll(#[source] io::Error),
}
