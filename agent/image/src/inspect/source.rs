//! Positioned reads of a file of known size.

use std::io::{self, Read, Seek, SeekFrom};

use super::InspectError;

/// A file that is read at positions.
pub(super) struct Source<R> {
    file: R,
    len: u64,
}

impl<R: Read + Seek> Source<R> {
    pub(super) fn new(mut file: R) -> Result<Self, InspectError> {
        let len = file.seek(SeekFrom::End(0)).map_err(InspectError::Read)?;
        Ok(Self { file, len })
    }

    pub(super) const fn len(&self) -> u64 {
        self.len
    }

    /// Whether `length` bytes at `offset` are within the file.
    pub(super) fn has(&self, offset: u64, length: u64) -> bool {
        offset.checked_add(length).is_some_and(|end| end <= self.len)
    }

    /// Fills `buffer` from `offset` on.
    ///
    /// # Errors
    /// Also if the file ends before.
    pub(super) fn read(&mut self, offset: u64, buffer: &mut [u8]) -> Result<(), InspectError> {
        let sought = self.file.seek(SeekFrom::Start(offset));
        sought.and_then(|_| self.file.read_exact(buffer)).map_err(InspectError::Read)
    }

    /// Reads up to `max` bytes from `offset` on, less if the file ends before.
    pub(super) fn read_up_to(&mut self, offset: u64, max: usize) -> Result<Vec<u8>, InspectError> {
        let left = usize::try_from(self.len.saturating_sub(offset)).unwrap_or(max);
        let mut bytes = vec![0; left.min(max)];
        self.read(offset, &mut bytes)?;
        Ok(bytes)
    }

    /// Passes the big-endian 64-bit entries of a table to `each`.
    pub(super) fn entries(
        &mut self,
        offset: u64,
        count: u64,
        mut each: impl FnMut(u64) -> Result<(), InspectError>,
    ) -> Result<(), InspectError> {
        const CHUNK: u64 = 64 << 10;
        let (mut at, mut left) = (offset, count.saturating_mul(8));
        let mut buffer = Vec::new();
        while left > 0 {
            let length = left.min(CHUNK);
            buffer
                .resize(usize::try_from(length).map_err(|_| InspectError::Read(io::ErrorKind::OutOfMemory.into()))?, 0);
            self.read(at, &mut buffer)?;
            for entry in buffer.as_chunks::<8>().0 {
                each(u64::from_be_bytes(*entry))?;
            }
            (at, left) = (at.saturating_add(length), left.saturating_sub(length));
        }
        Ok(())
    }
}
