//! Positions in the log of a console, so that a reader goes on where it was: also after the log was put aside, and
//! after the agent was killed. The log is the only copy of the output; nothing is kept in memory for a reader. Who asks
//! for the first time after both, with a position from before, is told of a gap, and gets what is kept from its
//! beginning.

use std::fmt;
use std::fs::File;
use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::{Mutex, MutexGuard, PoisonError};

use otherix_runtime::files;
use tokio::sync::watch;

use super::log;
use crate::folder::VmFolder;

/// What identifies the part of the log that was put aside: another one follows it. Zero while there is none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Tag {
    inode: u64,
    /// Unix time in nanoseconds.
    modified: u128,
}

/// A position in the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogPosition {
    /// Of the part that was put aside, or of the log after it.
    is_older: bool,
    tag: Tag,
    offset: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("is no position in the log of a console")]
pub struct LogPositionError;

impl fmt::Display for LogPosition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { is_older, tag: Tag { inode, modified }, offset } = self;
        let part = if *is_older { 'o' } else { 'c' };
        write!(f, "{part}{inode}.{modified}-{offset}")
    }
}

impl FromStr for LogPosition {
    type Err = LogPositionError;

    fn from_str(text: &str) -> Result<Self, LogPositionError> {
        let (is_older, rest) = match (text.strip_prefix('o'), text.strip_prefix('c')) {
            (Some(rest), _) => (true, rest),
            (None, Some(rest)) => (false, rest),
            (None, None) => return Err(LogPositionError),
        };
        let (tag, offset) = rest.split_once('-').ok_or(LogPositionError)?;
        let (inode, modified) = tag.split_once('.').ok_or(LogPositionError)?;
        let tag = Tag {
            inode: inode.parse().map_err(|_| LogPositionError)?,
            modified: modified.parse().map_err(|_| LogPositionError)?,
        };
        Ok(Self { is_older, tag, offset: offset.parse().map_err(|_| LogPositionError)? })
    }
}

/// A piece of the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogPiece {
    pub data: Vec<u8>,
    /// The position after it.
    pub next: LogPosition,
    /// What was between the position that was asked for and the piece is not kept.
    pub is_gap: bool,
    /// There is more now.
    pub has_more: bool,
}

/// Which log was put aside last.
#[derive(Clone, Copy, Debug)]
struct PutAside {
    /// What came before it.
    before: Tag,
    /// What it is now.
    now: Tag,
    /// Where in it the part begins that is kept.
    start: u64,
}

/// The log of a VM's console.
#[derive(Debug)]
pub struct ConsoleLog {
    path: PathBuf,
    older: PathBuf,
    put_aside: Mutex<Option<PutAside>>,
    activity: watch::Sender<()>,
}

impl ConsoleLog {
    pub fn new(folder: &VmFolder) -> Self {
        let (path, older) = (folder.console_log(), folder.older_console_log());
        Self { path, older, put_aside: Mutex::default(), activity: watch::Sender::new(()) }
    }

    /// Changes when the guest has written something. The log may have it some moments later.
    pub fn activity(&self) -> watch::Receiver<()> {
        self.activity.subscribe()
    }

    pub(super) fn note_activity(&self) {
        self.activity.send_replace(());
    }

    /// Puts the log aside if it has become long.
    pub(super) fn bound(&self, max: u64) -> io::Result<()> {
        let mut put_aside = self.lock();
        let before = tag(&self.older)?;
        if let Some(start) = log::bound(&self.path, &self.older, max)? {
            *put_aside = Some(PutAside { before, now: tag(&self.older)?, start });
        }
        Ok(())
    }

    /// Reads at most `max` bytes after a position, or without one from `tail` bytes before the end, or the beginning.
    ///
    /// # Errors
    /// Those of the file system; not if there is no log.
    pub fn read(&self, after: Option<LogPosition>, tail: Option<u64>, max: usize) -> io::Result<LogPiece> {
        // Not while the log is put aside.
        let put_aside = self.lock();
        let now = tag(&self.older)?;
        let (length, older_length) = (length(&self.path)?, length(&self.older)?);
        let (position, is_gap) = match after {
            Some(position) => located(position, now, *put_aside, length),
            None => (begin(now, tail, length, older_length), false),
        };
        let LogPosition { is_older, tag, offset } = position;
        let mut data = Vec::new();
        let mut next = position;
        if is_older {
            data = part(&self.older, offset, max)?;
            let read = offset.saturating_add(bytes(data.len()));
            next = LogPosition { offset: read, ..position };
            if read >= older_length {
                next = LogPosition { is_older: false, tag, offset: 0 };
            }
        }
        if !next.is_older && data.len() < max {
            let more = part(&self.path, next.offset, max - data.len())?;
            next.offset += bytes(more.len());
            data.extend(more);
        }
        Ok(LogPiece { data, next, is_gap, has_more: next.is_older || next.offset < length })
    }

    fn lock(&self) -> MutexGuard<'_, Option<PutAside>> {
        self.put_aside.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Where a position is now, and whether something is missing before it.
fn located(asked: LogPosition, now: Tag, put_aside: Option<PutAside>, length: u64) -> (LogPosition, bool) {
    let oldest = LogPosition { is_older: now != Tag::default(), tag: now, offset: 0 };
    if asked.tag == now {
        let is_beyond = !asked.is_older && asked.offset > length;
        return if is_beyond { (LogPosition { offset: 0, ..asked }, true) } else { (asked, false) };
    }
    match put_aside {
        // What was the log then is what is put aside now.
        Some(PutAside { before, now: aside, start }) if (before, aside, asked.is_older) == (asked.tag, now, false) => {
            let offset = asked.offset.saturating_sub(start);
            (LogPosition { is_older: true, tag: now, offset }, asked.offset < start)
        }
        Some(_) | None => (oldest, true),
    }
}

/// Where the last `tail` bytes begin.
fn begin(now: Tag, tail: Option<u64>, length: u64, older_length: u64) -> LogPosition {
    let tail = tail.unwrap_or(u64::MAX);
    if tail <= length || now == Tag::default() {
        return LogPosition { is_older: false, tag: now, offset: length.saturating_sub(tail) };
    }
    LogPosition { is_older: true, tag: now, offset: older_length.saturating_sub(tail - length) }
}

fn tag(older: &Path) -> io::Result<Tag> {
    match older.metadata() {
        Ok(found) => {
            let seconds = u128::from(found.mtime().unsigned_abs());
            let nanoseconds = u128::from(found.mtime_nsec().unsigned_abs());
            Ok(Tag { inode: found.ino(), modified: seconds * 1_000_000_000 + nanoseconds })
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Tag::default()),
        Err(error) => Err(error),
    }
}

fn length(path: &Path) -> io::Result<u64> {
    match path.metadata() {
        Ok(found) => Ok(found.len()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(0),
        Err(error) => Err(error),
    }
}

fn part(path: &Path, offset: u64, max: usize) -> io::Result<Vec<u8>> {
    let mut file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    file.seek(SeekFrom::Start(offset))?;
    files::read_at_most(file.take(bytes(max)), bytes(max))
}

fn bytes(length: usize) -> u64 {
    u64::try_from(length).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use std::fs::OpenOptions;
    use std::io::Write as _;

    use super::*;

    fn setup() -> (tempfile::TempDir, ConsoleLog, File) {
        let temporary = tempfile::tempdir().unwrap();
        let folder = VmFolder::new(temporary.path());
        let guest = OpenOptions::new().create(true).append(true).open(folder.console_log()).unwrap();
        let log = ConsoleLog::new(&folder);
        (temporary, log, guest)
    }

    #[test]
    fn positions_have_a_text_form() {
        let tag = Tag { inode: u64::MAX, modified: 1_700_000_000_000_000_001 };
        for is_older in [true, false] {
            let position = LogPosition { is_older, tag, offset: u64::MAX };
            let text = position.to_string();
            assert_eq!(text.parse(), Ok(position));
            assert!(text.len() <= 96 && text.bytes().all(|byte| b"0123456789oc.-".contains(&byte)), "{text}");
        }
        for bad in ["", "o", "x1.2-3", "o1-3", "o1.2", "c1.2-", "c-1.2-3", "c1.2-3 "] {
            assert_eq!(bad.parse::<LogPosition>(), Err(LogPositionError), "{bad}");
        }
    }

    /// A reader that asks now and then gets each byte once, while the log is put aside again and again.
    #[test]
    fn a_reader_misses_nothing_that_is_kept() {
        let (temporary, mut log, mut guest) = setup();
        let (mut written, mut seen, mut after) = (String::new(), Vec::new(), None);
        for number in 0..600 {
            let line = format!("line {number}\n");
            guest.write_all(line.as_bytes()).unwrap();
            written += &line;
            if number % 3 == 0 {
                log.bound(100).unwrap();
            }
            // As after a restart of the agent; not before the reader has seen that the log was put aside.
            if number % 50 == 49 && number % 3 != 0 {
                log = ConsoleLog::new(&VmFolder::new(temporary.path()));
            }
            for _ in 0..2 {
                let piece = log.read(after, None, 7).unwrap();
                assert!(!piece.is_gap && piece.data.len() <= 7);
                seen.extend(piece.data);
                after = Some(piece.next);
            }
        }
        while let piece = log.read(after, None, 64).unwrap()
            && !piece.data.is_empty()
        {
            assert!(!piece.is_gap);
            seen.extend(piece.data);
            after = Some(piece.next);
        }
        assert_eq!(String::from_utf8(seen).unwrap(), written);
    }

    #[test]
    fn who_asks_after_a_restart_with_a_position_from_before_the_log_was_put_aside_is_told() {
        let (temporary, log, mut guest) = setup();
        guest.write_all(&[b'x'; 100]).unwrap();
        let piece = log.read(None, None, 1000).unwrap();
        log.bound(100).unwrap();
        let restarted = ConsoleLog::new(&VmFolder::new(temporary.path()));
        guest.write_all(b"end").unwrap();
        let found = restarted.read(Some(piece.next), None, 1000).unwrap();
        assert_eq!((found.is_gap, found.data.len()), (true, 103));
        // One that goes on knows where it was.
        let found = log.read(Some(piece.next), None, 1000).unwrap();
        assert_eq!((found.is_gap, &*found.data), (false, &b"end"[..]));
    }

    #[test]
    fn who_was_away_for_too_long_is_told() {
        let (_temporary, log, mut guest) = setup();
        let first = log.read(None, None, 10).unwrap();
        assert_eq!((first.data.len(), first.has_more), (0, false));
        for _ in 0..3 {
            guest.write_all(&[b'x'; 100]).unwrap();
            log.bound(100).unwrap();
        }
        guest.write_all(b"end").unwrap();
        let piece = log.read(Some(first.next), None, 1000).unwrap();
        assert_eq!((piece.is_gap, piece.data.len(), piece.has_more), (true, 103, false));
        assert!(piece.data.ends_with(b"xend"));
        let next = log.read(Some(piece.next), None, 1000).unwrap();
        assert_eq!((next.is_gap, next.data.len(), next.next), (false, 0, piece.next));
        // Somebody has emptied the log.
        guest.set_len(0).unwrap();
        guest.write_all(b"n").unwrap();
        let piece = log.read(Some(piece.next), None, 1000).unwrap();
        assert_eq!((piece.is_gap, piece.data.as_slice()), (true, &b"n"[..]));
    }

    #[test]
    fn the_tail_spans_both_parts() {
        let (_temporary, log, mut guest) = setup();
        guest.write_all(&[b'a'; 100]).unwrap();
        log.bound(100).unwrap();
        guest.write_all(b"bcd").unwrap();
        let tail = |length| log.read(None, Some(length), 1000).unwrap().data;
        assert_eq!((tail(0), tail(2), tail(3)), (vec![], b"cd".to_vec(), b"bcd".to_vec()));
        assert_eq!((tail(5), tail(1000).len()), (b"aabcd".to_vec(), 103));
        let piece = log.read(None, Some(5), 2).unwrap();
        assert_eq!((piece.data.as_slice(), piece.has_more), (&b"aa"[..], true));
        assert_eq!(log.read(Some(piece.next), None, 9).unwrap().data, b"bcd");
    }
}
