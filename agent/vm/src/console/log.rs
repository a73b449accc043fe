//! The log of a console: what the guest has written, the last one to two MiB of it.

use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use otherix_runtime::files;

/// Size in bytes from which the log is put aside.
pub const LOG_MAX: u64 = 1 << 20;
/// Longest last line, in characters.
pub const LINE_MAX: usize = 200;
/// How much of the end is looked at for the last line, in bytes.
const LAST_BYTES: u64 = 8192;

/// Puts the log aside if it has reached `max` bytes, in place of what was put aside before. QEMU keeps appending to
/// the same file: it is copied and truncated. What the guest writes between the last look and the truncation, which is
/// some microseconds, is lost. Killed in between, the log is longer for a while, and nothing is lost.
///
/// Returns where the part that was put aside began in the log, if it was.
///
/// # Errors
/// Those of the file system. The log is then as it was, or longer.
pub fn bound(path: &Path, older: &Path, max: u64) -> io::Result<Option<u64>> {
    let mut log = match OpenOptions::new().read(true).write(true).open(path) {
        Ok(log) => log,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let length = log.metadata()?.len();
    if length < max {
        return Ok(None);
    }
    // Of a log that has grown while no agent was there, the end.
    log.seek(SeekFrom::Start(length - max))?;
    let mut temporary = older.as_os_str().to_owned();
    temporary.push(".new");
    let temporary = Path::new(&temporary);
    files::remove(temporary)?;
    let mut copy = OpenOptions::new().write(true).create_new(true).mode(0o600).open(temporary)?;
    // Not `io::copy`, which a guest that writes faster would never let end.
    for _ in 0..16 {
        let mut bytes = Vec::new();
        if (&mut log).take(max).read_to_end(&mut bytes)? == 0 {
            break;
        }
        copy.write_all(&bytes)?;
    }
    // The kernel's own times are too coarse to tell one such file from the next.
    let before = older.metadata().and_then(|before| before.modified());
    if let Ok(before) = before
        && copy.metadata()?.modified()? <= before
    {
        copy.set_modified(before + std::time::Duration::from_micros(1))?;
    }
    std::fs::rename(temporary, older)?;
    log.set_len(0)?;
    Ok(Some(length - max))
}

/// The last `max` bytes of the log, with what was put aside before it.
///
/// # Errors
/// Those of the file system; not if there is no log.
pub fn tail(path: &Path, older: &Path, max: u64) -> io::Result<Vec<u8>> {
    let newer = end(path, max)?;
    let rest = max.saturating_sub(u64::try_from(newer.len()).unwrap_or(u64::MAX));
    let mut bytes = end(older, rest)?;
    bytes.extend(newer);
    Ok(bytes)
}

/// The last line that says something, as text without escape sequences; `None` if there is none in the last 8 KiB.
#[must_use]
pub fn last_line(path: &Path, older: &Path) -> Option<String> {
    let bytes = tail(path, older, LAST_BYTES).ok()?;
    let text = plain(&String::from_utf8_lossy(&bytes));
    let line = text.lines().rev().map(str::trim).find(|line| line.chars().any(char::is_alphanumeric))?;
    Some(line.chars().take(LINE_MAX).collect())
}

fn end(path: &Path, max: u64) -> io::Result<Vec<u8>> {
    let mut file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let length = file.metadata()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(max)))?;
    files::read_at_most(file.take(max), max)
}

/// A text without what a terminal would obey.
fn plain(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    let mut characters = text.chars().peekable();
    while let Some(character) = characters.next() {
        match character {
            '\u{1b}' => skip_sequence(&mut characters),
            '\n' => plain.push('\n'),
            // A line that is overwritten counts as another.
            '\r' => plain.push('\n'),
            '\t' => plain.push(' '),
            // Also what changes the direction or the width of what follows.
            _ if character.is_control() || is_format(character) => {}
            _ => plain.push(character),
        }
    }
    plain
}

/// Skips the rest of an escape sequence: `ESC [ parameters letter`, `ESC ] text BEL`, or `ESC` and one character.
fn skip_sequence(characters: &mut std::iter::Peekable<std::str::Chars<'_>>) {
    match characters.next() {
        Some('[') => while characters.next_if(|next| !('\u{40}'..='\u{7e}').contains(next)).is_some() {},
        Some(']') => while characters.next_if(|next| !['\u{7}', '\n', '\u{1b}'].contains(next)).is_some() {},
        Some(_) | None => return,
    }
    // Its final character.
    let _last = characters.next_if(|next| *next != '\n');
}

const fn is_format(character: char) -> bool {
    matches!(character, '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line_of(text: &str) -> Option<String> {
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join("log");
        std::fs::write(&log, text).unwrap();
        last_line(&log, &folder.path().join("older"))
    }

    #[test]
    fn last_line_is_what_the_guest_last_said() {
        assert_eq!(line_of(""), None);
        assert_eq!(line_of("\r\n / # \u{1b}[6n"), None);
        assert_eq!(line_of("a\nb\r\n\r\n"), Some("b".to_owned()));
        assert_eq!(line_of("\u{1b}[1;31mred\u{1b}[0m\n/ # \u{1b}[6n"), Some("red".to_owned()));
        assert_eq!(line_of("\u{1b}]0;title\u{7}text"), Some("text".to_owned()));
        assert_eq!(line_of("a\u{202e}b\u{0}\u{9b}c"), Some("abc".to_owned()));
        assert_eq!(line_of(&"x".repeat(10_000)), Some("x".repeat(LINE_MAX)));
        assert_eq!(line_of("text\u{1b}["), Some("text".to_owned()));
    }

    #[test]
    fn log_is_bounded_and_goes_on() {
        let folder = tempfile::tempdir().unwrap();
        let (log, older) = (folder.path().join("log"), folder.path().join("older"));
        bound(&log, &older, 100).unwrap();
        let mut guest = OpenOptions::new().create(true).append(true).open(&log).unwrap();
        let mut written = String::new();
        for number in 0..200 {
            let line = format!("line {number}\n");
            guest.write_all(line.as_bytes()).unwrap();
            written += &line;
            bound(&log, &older, 100).unwrap();
            let found = String::from_utf8(tail(&log, &older, 1 << 20).unwrap()).unwrap();
            assert!(found.len() <= 220, "{}", found.len());
            assert!(written.ends_with(&found));
            assert!(found.len() >= 100 || found == written);
        }
        assert_eq!(last_line(&log, &older).unwrap(), "line 199");
        assert_eq!(tail(&log, &older, 4).unwrap(), b"199\n");
        // Grown while nobody looked.
        guest.write_all(&[b'x'; 5000]).unwrap();
        bound(&log, &older, 100).unwrap();
        assert_eq!((std::fs::read(&log).unwrap().len(), std::fs::read(&older).unwrap()), (0, vec![b'x'; 100]));
    }
}
