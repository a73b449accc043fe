//! Follows a log file that its writer appends to, truncates, or renames and begins anew when it has become long. Memory
//! and time of a reading are bounded, however much is logged: what is too much is skipped.

use std::fs::{self, File, Metadata};
use std::io::{self, ErrorKind, Read, Seek, SeekFrom};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::line::{Line, LineBuffer};

/// Most bytes that are read at a time.
const READ_MAX: u64 = 256 << 10;

/// Most bytes that are not read yet. The earliest of more are skipped.
const BEHIND_MAX: u64 = 2 << 20;

/// Bytes read with one system call.
const CHUNK: usize = 16 << 10;

/// A place in a log.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct LogPosition {
    /// The file, by its inode; `None` if there was none.
    inode: Option<u64>,
    offset: u64,
}

impl LogPosition {
    /// The present end of the log.
    pub(crate) fn end_of(path: &Path) -> Self {
        fs::metadata(path).map_or(Self::default(), |file| Self { inode: Some(file.ino()), offset: file.len() })
    }
}

/// Reads the lines of a log that are new.
pub(super) struct LogFollower {
    path: PathBuf,
    begin: LogPosition,
    open: Option<OpenLog>,
}

/// The file that is read, which may have been renamed.
struct OpenLog {
    file: File,
    inode: u64,
    offset: u64,
    line: LineBuffer,
}

impl LogFollower {
    pub(super) fn new(path: PathBuf, begin: LogPosition) -> Self {
        Self { path, begin, open: None }
    }

    /// Reads what was appended, and passes each complete line on. Returns the number of bytes that were skipped.
    pub(super) fn read(&mut self, mut each: impl FnMut(&Line<'_>)) -> io::Result<u64> {
        let mut skipped = 0;
        let mut budget = READ_MAX;
        loop {
            let open = match &mut self.open {
                Some(open) => open,
                None => match OpenLog::open(&self.path, self.begin)? {
                    Some(open) => self.open.insert(open),
                    None => return Ok(skipped),
                },
            };
            skipped += open.skip()?;
            budget -= open.read(budget, &mut each)?;
            if budget == 0 {
                return Ok(skipped);
            }
            // All of it is read. Is there another file of this name?
            match fs::metadata(&self.path) {
                Ok(file) if file.ino() != open.inode => (self.open, self.begin) = (None, LogPosition::default()),
                Ok(_) => return Ok(skipped),
                Err(error) if error.kind() == ErrorKind::NotFound => return Ok(skipped),
                Err(error) => return Err(error),
            }
        }
    }
}

impl OpenLog {
    fn open(path: &Path, begin: LogPosition) -> io::Result<Option<Self>> {
        let file = match File::open(path) {
            Ok(file) => file,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        let inode = file.metadata()?.ino();
        let offset = if begin.inode == Some(inode) { begin.offset } else { 0 };
        Ok(Some(Self { file, inode, offset, line: LineBuffer::default() }))
    }

    /// Begins again if the file was truncated, and skips what is too much.
    fn skip(&mut self) -> io::Result<u64> {
        let length = Metadata::len(&self.file.metadata()?);
        if length < self.offset {
            (self.offset, self.line) = (0, LineBuffer::default());
        }
        let behind = length - self.offset;
        if behind <= BEHIND_MAX {
            return Ok(0);
        }
        let skipped = behind - READ_MAX;
        self.offset += skipped;
        // What is there now is the end of a line.
        self.line.skip_rest();
        Ok(skipped)
    }

    /// Reads at most `budget` bytes. Returns how many there were.
    fn read(&mut self, budget: u64, each: &mut impl FnMut(&Line<'_>)) -> io::Result<u64> {
        self.file.seek(SeekFrom::Start(self.offset))?;
        let mut chunk = vec![0; CHUNK];
        let mut taken = 0;
        while taken < budget {
            let limit = usize::try_from(budget - taken).unwrap_or(CHUNK).min(CHUNK);
            let Some(space) = chunk.get_mut(..limit) else { break };
            let count = match self.file.read(space) {
                Ok(0) => break,
                Ok(count) => count,
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            };
            let read = space.get(..count).unwrap_or_default();
            for piece in read.split_inclusive(|byte| *byte == b'\n') {
                match piece.strip_suffix(b"\n") {
                    Some(end) => self.line.end(end, &mut *each),
                    None => self.line.push(piece),
                }
            }
            let count = u64::try_from(count).unwrap_or_default();
            (taken, self.offset) = (taken + count, self.offset + count);
        }
        Ok(taken)
    }
}

#[cfg(test)]
#[path = "follow_tests.rs"]
mod tests;
