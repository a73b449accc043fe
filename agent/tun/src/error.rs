//! Errors of TAP devices.

use std::io;

/// Why a TAP device could not be created, attached to or changed.
#[derive(Debug, thiserror::Error)]
pub enum TapError {
    /// The kernel rejects the name, or would change it.
    #[error("`{0}` is not a valid name of a tap")]
    Name(String),
    /// The kernel lacks TUN/TAP, or this process may not use it.
    #[error("cannot open `/dev/net/tun`")]
    Open(#[source] io::Error),
    #[error("a device `{0}` already exists")]
    Exists(String),
    #[error("there is no tap `{0}`")]
    Absent(String),
    /// Another process is attached; a device has a single queue.
    #[error("tap `{0}` is in use")]
    Busy(String),
    #[error("`{0}` is not a tap with a single queue")]
    NotTap(String),
    #[error("cannot {attempt} tap `{name}`")]
    Kernel {
        attempt: &'static str,
        name: String,
        #[source]
        source: io::Error,
    },
}
