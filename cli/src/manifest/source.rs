//! Where manifests come from: files and standard input, read whole before anything else happens. Blocking.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use super::problem::{Problems, Scope};

/// Longest file, in bytes: thousands of networks.
const LONGEST: u64 = 4 << 20;

/// How standard input is called in messages.
const STDIN: &str = "stdin";

/// A file that was read.
#[derive(Debug)]
pub(super) struct Source {
    /// As it was named.
    pub(super) name: String,
    /// What is in it.
    pub(super) text: String,
}

/// Reads all files; `-` is standard input, which can be read once.
pub(super) fn read(files: &[PathBuf], problems: &mut Problems) -> Vec<Source> {
    let mut sources = Vec::new();
    let mut stdin_read = false;
    for path in files {
        let is_stdin = path == Path::new("-");
        let name = if is_stdin { STDIN.to_owned() } else { path.display().to_string() };
        let mut scope = Scope { file: &name, document: None, problems };
        if is_stdin && std::mem::replace(&mut stdin_read, true) {
            scope.whole("cannot be read twice: give `-` once");
            continue;
        }
        let bytes = if is_stdin { bounded(io::stdin().lock()) } else { open(path).and_then(bounded) };
        let bytes = match bytes {
            Ok(bytes) => bytes,
            Err(error) => {
                scope.whole(format!("cannot be read: {error}"));
                continue;
            }
        };
        match String::from_utf8(bytes) {
            Ok(text) => sources.push(Source { name, text }),
            Err(error) => {
                let valid = error.as_bytes().get(..error.utf8_error().valid_up_to()).unwrap_or_default();
                let line = 1 + valid.iter().filter(|byte| **byte == b'\n').count();
                scope.place(line, "is not text: a manifest is UTF-8");
            }
        }
    }
    sources
}

fn open(path: &Path) -> io::Result<File> {
    let file = File::open(path)?;
    // Reading a folder fails too, but not everywhere in words that say why.
    if file.metadata()?.is_dir() { Err(io::Error::other("it is a folder, not a file")) } else { Ok(file) }
}

fn bounded(from: impl Read) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    from.take(LONGEST + 1).read_to_end(&mut bytes)?;
    if u64::try_from(bytes.len()).is_ok_and(|length| length <= LONGEST) {
        Ok(bytes)
    } else {
        Err(io::Error::other(format!("it is longer than {} MiB", LONGEST >> 20)))
    }
}
