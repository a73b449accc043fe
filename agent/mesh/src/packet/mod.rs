//! Segmentation and merging of IP packets. Pure, and does not panic on any input.
//!
//! - [`bytes`], [`checksum`], [`layers`]: access to fields, the Internet checksum, offsets of headers
//! - [`virtio`]: the header of a packet on the TUN device
//! - [`split`]: divides a GSO packet of the kernel into packets to encrypt
//! - [`merge`]: merges decrypted packets into a GSO packet for the kernel

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
