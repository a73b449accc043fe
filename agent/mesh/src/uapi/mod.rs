//! WireGuard's userspace protocol, as text. Pure: no bytes make it panic, and no error holds a value, which may be a secret.
//!
//! - [`decode`]: requests, as the device reads them; answers, as a client reads them
//! - [`encode`]: the other way round
//!
//! A request and an answer end with an empty line. <https://www.wireguard.com/xplatform/#cross-platform-userspace-implementation>

mod decode;
mod encode;
#[cfg(test)]
mod tests;

pub use decode::{UapiAnswerError, UapiRequestError, request, set_answer, status};
pub(crate) use encode::status as encode_status;
pub use encode::{GET, answer, set};

use super::config::WgDeviceUpdate;

/// What a client asks of a device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum UapiRequest {
    /// What it is.
    Get,
    /// Change this.
    Set(WgDeviceUpdate),
}

/// Where the first request or answer in `bytes` ends, if it does; its empty line is part of it. `searched` bytes have been
/// looked through before.
#[must_use]
pub fn end(bytes: &[u8], searched: usize) -> Option<usize> {
    let from = searched.saturating_sub(1);
    let position = bytes.get(from..)?.array_windows::<2>().position(|pair| pair == b"\n\n")?;
    Some(from + position + 2)
}
