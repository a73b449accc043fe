//! Access to fields of packets, in network byte order unless stated otherwise. Out-of-range access returns `None`.

use std::ops::Range;

pub(crate) fn get_u8(bytes: &[u8], offset: usize) -> Option<u8> {
    bytes.get(offset).copied()
}

pub(crate) fn get_u16(bytes: &[u8], offset: usize) -> Option<u16> {
    bytes.get(offset..)?.first_chunk().copied().map(u16::from_be_bytes)
}

pub(crate) fn get_u32(bytes: &[u8], offset: usize) -> Option<u32> {
    bytes.get(offset..)?.first_chunk().copied().map(u32::from_be_bytes)
}

/// For WireGuard's fields, which are little-endian.
pub(crate) fn get_u32_le(bytes: &[u8], offset: usize) -> Option<u32> {
    bytes.get(offset..)?.first_chunk().copied().map(u32::from_le_bytes)
}

/// For WireGuard's fields, which are little-endian.
pub(crate) fn get_u64_le(bytes: &[u8], offset: usize) -> Option<u64> {
    bytes.get(offset..)?.first_chunk().copied().map(u64::from_le_bytes)
}

pub(crate) fn put_u8(bytes: &mut [u8], offset: usize, value: u8) -> Option<()> {
    *bytes.get_mut(offset)? = value;
    Some(())
}

pub(crate) fn put_u16(bytes: &mut [u8], offset: usize, value: u16) -> Option<()> {
    *bytes.get_mut(offset..)?.first_chunk_mut()? = value.to_be_bytes();
    Some(())
}

pub(crate) fn put_u32(bytes: &mut [u8], offset: usize, value: u32) -> Option<()> {
    *bytes.get_mut(offset..)?.first_chunk_mut()? = value.to_be_bytes();
    Some(())
}

pub(crate) fn copy(bytes: &mut [u8], offset: usize, from: &[u8]) -> Option<()> {
    bytes.get_mut(offset..offset.checked_add(from.len())?)?.copy_from_slice(from);
    Some(())
}

/// Moves bytes within a buffer to offset `to`.
pub(crate) fn shift(bytes: &mut [u8], from: Range<usize>, to: usize) -> Option<()> {
    let length = from.end.checked_sub(from.start)?;
    if from.end > bytes.len() || to.checked_add(length)? > bytes.len() {
        return None;
    }
    bytes.copy_within(from, to);
    Some(())
}

/// Whether both buffers contain the range, with the same bytes.
pub(crate) fn equal_at(one: &[u8], other: &[u8], range: Range<usize>) -> bool {
    matches!((one.get(range.clone()), other.get(range)), (Some(one), Some(other)) if one == other)
}
