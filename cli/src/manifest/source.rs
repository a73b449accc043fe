//! Reads files and standard input whole. Blocking.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use super::problem::{ProblemScope, Problems};

/// Longest file, in bytes: enough for thousands of networks.
const LENGTH_MAX: u64 = 4 << 20;

/// The name of standard input in messages.
const STDIN: &str = "stdin";

/// The content of a file.
#[derive(Debug)]
pub(super) struct Source {
    /// As the user named it.
    pub(super) name: String,
    pub(super) text: String,
}

/// Reads all files; `-` is standard input.
pub(super) fn read(files: &[PathBuf], problems: &mut Problems) -> Vec<Source> {
    let mut sources = Vec::new();
    let mut stdin_read = false;
    for path in files {
        let is_stdin = path == Path::new("-");
        let name = if is_stdin { STDIN.to_owned() } else { path.display().to_string() };
        let mut scope = ProblemScope::of(&name, problems);
        if is_stdin && std::mem::replace(&mut stdin_read, true) {
            scope.file("can be read only once: pass `-` once");
            continue;
        }
        let bytes = if is_stdin { bounded(io::stdin().lock()) } else { open(path).and_then(bounded) };
        let bytes = match bytes {
            Ok(bytes) => bytes,
            Err(error) => {
                scope.file(format!("cannot be read: {error}"));
                continue;
            }
        };
        match String::from_utf8(bytes) {
            Ok(text) => sources.push(Source { name, text }),
            Err(error) => {
                let valid = error.as_bytes().get(..error.utf8_error().valid_up_to()).unwrap_or_default();
                let line = 1 + valid.iter().filter(|byte| **byte == b'\n').count();
                scope.line(line, "invalid UTF-8");
            }
        }
    }
    sources
}

fn open(path: &Path) -> io::Result<File> {
    let file = File::open(path)?;
    // Reading a directory fails too, but not on every system with a message that says why.
    if file.metadata()?.is_dir() { Err(io::Error::other("it is a directory")) } else { Ok(file) }
}

fn bounded(from: impl Read) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    from.take(LENGTH_MAX + 1).read_to_end(&mut bytes)?;
    if u64::try_from(bytes.len()).is_ok_and(|length| length <= LENGTH_MAX) {
        Ok(bytes)
    } else {
        Err(io::Error::other(format!("it is larger than {} MiB", LENGTH_MAX >> 20)))
    }
}
