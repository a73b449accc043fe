//! IP packets between the TUN device and the wire. Pure: bytes in, bytes out, whatever they are; nothing here panics.
//!
//! - [`bytes`], [`checksum`], [`layers`]: numbers in packets, the Internet checksum, where a packet's parts lie
//! - [`virtio`]: the header that a packet has on the TUN device
//! - [`split`]: a large packet of the kernel's into packets for the wire
//! - [`merge`]: packets from the wire into a large one for the kernel

mod bytes;
mod checksum;
mod layers;
pub(crate) mod merge;
pub(crate) mod split;
#[cfg(test)]
mod tests;
pub(crate) mod virtio;

pub(crate) use bytes::{get_u32_le, get_u64_le};
pub(crate) use layers::addresses;
