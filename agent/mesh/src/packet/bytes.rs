//! Numbers in packets. What lies outside reads as `None`, and is not written.

use std::ops::Range;

pub(crate) fn get_u8(bytes: &[u8], at: usize) -> Option<u8> {
    bytes.get(at).copied()
}

pub(crate) fn get_u16(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..)?.first_chunk().copied().map(u16::from_be_bytes)
}

pub(crate) fn get_u32(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..)?.first_chunk().copied().map(u32::from_be_bytes)
}

/// WireGuard's own numbers are little-endian.
pub(crate) fn get_u32_le(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..)?.first_chunk().copied().map(u32::from_le_bytes)
}

/// WireGuard's own numbers are little-endian.
pub(crate) fn get_u64_le(bytes: &[u8], at: usize) -> Option<u64> {
    bytes.get(at..)?.first_chunk().copied().map(u64::from_le_bytes)
}

pub(crate) fn put_u8(bytes: &mut [u8], at: usize, value: u8) -> Option<()> {
    *bytes.get_mut(at)? = value;
    Some(())
}

pub(crate) fn put_u16(bytes: &mut [u8], at: usize, value: u16) -> Option<()> {
    *bytes.get_mut(at..)?.first_chunk_mut()? = value.to_be_bytes();
    Some(())
}

pub(crate) fn put_u32(bytes: &mut [u8], at: usize, value: u32) -> Option<()> {
    *bytes.get_mut(at..)?.first_chunk_mut()? = value.to_be_bytes();
    Some(())
}

pub(crate) fn copy(bytes: &mut [u8], at: usize, from: &[u8]) -> Option<()> {
    bytes.get_mut(at..at.checked_add(from.len())?)?.copy_from_slice(from);
    Some(())
}

/// Moves bytes within a buffer.
pub(crate) fn shift(bytes: &mut [u8], from: Range<usize>, to: usize) -> Option<()> {
    let length = from.end.checked_sub(from.start)?;
    if from.end > bytes.len() || to.checked_add(length)? > bytes.len() {
        return None;
    }
    bytes.copy_within(from, to);
    Some(())
}

/// Whether both have the same bytes there, which must be within both.
pub(crate) fn same(one: &[u8], other: &[u8], range: Range<usize>) -> bool {
    matches!((one.get(range.clone()), other.get(range)), (Some(one), Some(other)) if one == other)
}
