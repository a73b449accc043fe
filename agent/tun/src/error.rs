//! What can go wrong with a TAP device.

use std::io;

/// Why a TAP device could not be made, found or changed.
#[derive(Debug, thiserror::Error)]
pub enum TapError {
    /// The kernel would not take the text as a name, or not as it stands.
    #[error("`{0}` cannot be the name of a tap")]
    Name(String),
    /// The kernel has no TAP devices, or this process may not use them.
    #[error("cannot open `/dev/net/tun`")]
    Open(#[source] io::Error),
    /// A device of that name is there already.
    #[error("there is a device `{0}` already")]
    Exists(String),
    /// There is no device of that name.
    #[error("there is no tap `{0}`")]
    Absent(String),
    /// Somebody is attached to it, and it has one queue only.
    #[error("tap `{0}` is in use")]
    Busy(String),
    /// The device of that name is of another kind, or a tap with several queues.
    #[error("`{0}` is no tap with a single queue")]
    NotTap(String),
    /// The kernel refused.
    #[error("cannot {attempt} tap `{name}`")]
    Kernel {
        /// What was attempted.
        attempt: &'static str,
        /// The device's name.
        name: String,
        /// Why.
        #[source]
        source: io::Error,
    },
}
