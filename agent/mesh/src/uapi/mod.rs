//! The text format of WireGuard's userspace protocol. Pure, does not panic on any input, and errors contain no values,
//! which may be secret.
//!
//! - [`decode`]: requests, for the device, and answers, for a client
//! - [`encode`]: requests, for a client, and answers, for the device
//!
//! Requests and answers end with an empty line.
//! <https://www.wireguard.com/xplatform/#cross-platform-userspace-implementation>

mod decode;
mod encode;
#[cfg(test)]
mod tests;

pub use decode::{UapiAnswerError, UapiRequestError, decode_request, decode_set_answer, decode_status};
pub(crate) use encode::encode_status;
pub use encode::{GET_REQUEST, encode_set_answer, encode_set_request};

use super::config::WgDeviceUpdate;

/// A request of a client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum UapiRequest {
    /// For configuration and status.
    Get,
    /// For a change of the configuration.
    Set(WgDeviceUpdate),
}

/// The end of the first request or answer in `bytes`, after its empty line; `None` if it is incomplete. The first
/// `searched` bytes are known to contain no end.
#[must_use]
pub fn message_end(bytes: &[u8], searched: usize) -> Option<usize> {
    let start = searched.saturating_sub(1);
    let position = bytes.get(start..)?.array_windows::<2>().position(|pair| pair == b"\n\n")?;
    Some(start + position + 2)
}
